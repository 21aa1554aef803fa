# Public names of uniemox.losses; clients import no others.
from .methods import hierarchical_cross_entropy as hierarchical_cross_entropy
from .methods import multiplicative_loss as multiplicative_loss
from .methods import polarity_loss as polarity_loss
from .methods import word_alignment_loss as word_alignment_loss
from .objective import contrastive_feature_alignment as contrastive_feature_alignment
from .objective import reconstruction_loss as reconstruction_loss
from .objective import semantic_visual_alignment as semantic_visual_alignment
from .objective import soft_target_cross_entropy as soft_target_cross_entropy
