"""Settings of views and masks."""

from dataclasses import dataclass

from uniemox.bounds import check_numbers
from uniemox.classifier_info import ClassifierInfo, PersonPolicy
from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """Settings that turn an image into the model's input."""

    size: int = 224
    """Side of the network's input in px, at least 8, for scene and person view."""
    min_area: float = 0.2
    """Minimum share of the image's area in a training crop, more than 0, at most 1. Raise it if crops lose the
    subject."""
    person: PersonPolicy = "largest"
    """Person view. largest: the target person if the data name one, else the largest. union: box around all.
    persons_only: image, black outside of persons. second_crop: a second random crop, as in the authors' code."""
    crop_fraction: float = 0.9
    """Centre crop for evaluation: share of the short side, more than 0, at most 1. The default is timm's crop_pct for
    ViTs."""
    hide_person: bool = False
    """Black out the person in the scene view, so that it shows only the surroundings, as EmotiCon does."""

    @classmethod
    def of(cls, info: ClassifierInfo) -> "ViewConfig":
        """Return the view settings that a classifier was trained with."""
        return cls(size=info.size, crop_fraction=info.crop_fraction, person=info.person, hide_person=info.hides_person)

    def __post_init__(self) -> None:
        shares = ("min_area", "crop_fraction")
        check_numbers(
            self, "view.", at_least={"size": 8}, above=dict.fromkeys(shares, 0), at_most=dict.fromkeys(shares, 1)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskConfig:
    """Settings of the patch mask."""

    ratio: float = 0.75
    """μ, share of hidden patches, between 0 and 1, both excluded; table V of the paper compares 0.25 to 0.85."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ConfigError(f"mask.ratio must lie strictly between 0 and 1, got {self.ratio}; the default is 0.75")
