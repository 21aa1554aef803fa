"""Which part of a picture is the person view (arXiv 2409.18877, section III-A; the policies are this project's)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from uniemox.persons.box import Box, Detection, clip_box, union_box

Policy = Literal["largest", "union", "persons_only"]
"""largest: the target where the data set names one, else the person with the largest area × confidence.  union: the box
around everybody.  persons_only: the whole picture, black where nobody is."""

Source = Literal["target", "largest", "union", "persons_only", "whole_image_nobody_found", "whole_image_nobody_looked"]


class PersonCrop(NamedTuple):
    """A part of a picture and why it was taken."""

    box: Box
    """Inside the picture, at least one px."""
    source: Source
    keep: tuple[Box, ...] = ()
    """Only these boxes are not blacked out; none: everything is kept."""


def choose_person(
    persons: Sequence[Detection] | None, target: Box | None, size: tuple[int, int], policy: Policy = "largest"
) -> PersonCrop:
    """The person view of a picture.

    persons: what a detector found; None if nobody looked.  target: the person meant by the data set.  size: width and
    height of the picture, px. Without a person it is the whole picture, and `source` says why.
    Raises BoxError for a box that does not touch the picture.
    """
    whole = Box(0, 0, *size)
    if target is not None and policy == "largest":
        return PersonCrop(clip_box(target, *size), "target")
    boxes = [] if target is None else [clip_box(target, *size)]
    boxes += [clip_box(person.box, *size) for person in persons or ()]
    if not boxes:
        return PersonCrop(whole, "whole_image_nobody_looked" if persons is None else "whole_image_nobody_found")
    if policy == "union":
        return PersonCrop(union_box(boxes), "union")
    if policy == "persons_only":
        return PersonCrop(whole, "persons_only", tuple(boxes))
    confidences = [person.confidence for person in persons or ()]
    _, best = max(
        (box.area * confidence, -i) for i, (box, confidence) in enumerate(zip(boxes, confidences, strict=True))
    )
    return PersonCrop(boxes[-best], "largest")
