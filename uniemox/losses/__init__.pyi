# Public names of uniemox.losses; clients import no others.
from .config import LossWeights as LossWeights
from .methods import images_with_words as images_with_words
from .methods import multiplicative_label_loss as multiplicative_label_loss
from .methods import multiplicative_loss as multiplicative_loss
from .methods import polarity_loss as polarity_loss
from .methods import word_alignment_terms as word_alignment_terms
from .objective import contrastive_feature_alignment as contrastive_feature_alignment
from .objective import mean_over_images as mean_over_images
from .objective import reconstruction_loss as reconstruction_loss
from .objective import semantic_visual_alignment as semantic_visual_alignment
from .objective import soft_target_cross_entropy as soft_target_cross_entropy
