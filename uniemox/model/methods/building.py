"""The methods by name."""

from collections.abc import Sequence

import torch

from uniemox.errors import ConfigError
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
    name: RegionMethod, *, width: int, channels: int, labels: Sequence[str], word_counts: Sequence[int] = ()
) -> Relation:
    """A method with random weights.

    width: D, of the encoder's last map.  channels: C, of the method's vectors.  labels: E of them.
    word_counts: of method eap, how many words it knows of each kind; one kind, the labels, if it is empty.
    Raises ConfigError for a method that needs labels of two polarities at least, where there are not.
    """
    signs = torch.tensor(polarities(labels))  # (P, E)
    if name in ("stimuli", "mdan") and len(signs) < 2:
        raise ConfigError(f"method {name} separates negative from positive labels; {', '.join(labels)} are of one kind")
    match name:
        case "solver":
            return Solver(width, channels)
        case "stimuli":
            return StimuliAware(width, channels, signs)
        case "mdan":
            return Mdan(width, channels, signs, GRID**2)
        case "eap":
            return Eap(width, channels, word_counts or [len(labels)])
        case "rrla":
            return Rrla(width, channels)
        case "emoticon":
            return EmotiCon(width, channels, len(labels))
