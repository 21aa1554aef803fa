"""Names of the groups of regions that a method relates; apart from `regions`, so that settings import no torch."""

from typing import Literal

Group = Literal["scene", "cells", "objects", "people", "person", "body", "face"]
# Groups of the person view.
PERSON_GROUPS: tuple[Group, ...] = ("person", "body", "face")
# Groups whose boxes the detector of objects finds, if there is one.
DETECTED_GROUPS: tuple[Group, ...] = ("objects", "people")
REGIONS_BY_DETECTOR: dict[str, frozenset[Group]] = {"objects": frozenset(DETECTED_GROUPS), "faces": frozenset({"face"})}
"""Groups of regions by the option of fine-tuning whose detector finds them."""
