"""The methods by name."""

from collections.abc import Sequence

import torch

from uniemox.errors import CheckpointError, ConfigError
from uniemox.labels import polarities
from uniemox.model.config import RegionMethod
from uniemox.model.methods.eap import Eap
from uniemox.model.methods.emoticon import EmotiCon
from uniemox.model.methods.mdan import Mdan
from uniemox.model.methods.relation import Relation
from uniemox.model.methods.rrla import Rrla
from uniemox.model.methods.solver import Solver
from uniemox.model.methods.stimuli import StimuliAware
from uniemox.model.regions import GRID

METHODS: dict[RegionMethod, type[Relation]] = {
    "solver": Solver,
    "stimuli": StimuliAware,
    "mdan": Mdan,
    "eap": Eap,
    "rrla": Rrla,
    "emoticon": EmotiCon,
}


def build_method(
    name: RegionMethod,
    *,
    width: int,
    channels: int,
    labels: Sequence[str],
    word_counts: Sequence[int] = (),
    skip: bool | None = True,
) -> Relation:
    """Build a method with random weights.

    width: D, of the encoder's last map.  channels: C, of the method's vectors.  labels: E of them.
    word_counts: of method eap, number of words of each kind; one kind, the labels, if it is empty.
    skip: whether the head also reads the features of whole views, see `relation`; None: as files have it that do not
    say, with the skip, and of method mdan without a classifier of the labels' level.
    Raises ConfigError for a method that needs labels of two polarities at least, where there are not; CheckpointError
    for a file of method emoticon that does not say.
    """
    has_skip = skip is not False
    signs = torch.tensor(polarities(labels))  # (P, E)
    if name in ("stimuli", "mdan") and len(signs) < 2:
        raise ConfigError(f"method {name} separates negative from positive labels; {', '.join(labels)} are of one kind")
    match name:
        case "solver":
            return Solver(width, channels, skip=has_skip)
        case "stimuli":
            return StimuliAware(width, channels, signs, skip=has_skip)
        case "mdan":
            return Mdan(width, channels, signs, GRID**2, skip=has_skip, classifies_labels=skip is not None)
        case "eap":
            return Eap(width, channels, word_counts or [len(labels)], skip=has_skip)
        case "rrla":
            return Rrla(width, channels, skip=has_skip)
        case "emoticon":
            if skip is None:
                raise CheckpointError(
                    "this EmotiCon multiplies its contexts, which the paper does not and uniemox no longer builds; its "
                    "model.onnx still predicts, for anything else train it again"
                )
            return EmotiCon(width, channels, len(labels), skip=skip)
