"""Which part of an image is the person view (arXiv 2409.18877, section III-A; the policies are this project's)."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from uniemox.classifier_info import PersonPolicy
from uniemox.errors import BoxError
from uniemox.persons.box import Box, Detection, clip_box, touched_box, union_box

"""largest: the target where the data set names one, else the person with the largest area × confidence.  union: the box
around everybody.  persons_only: the whole image, black where nobody is.  second_crop: no person; in training a second
random crop of the image, as in the paper's released code, elsewhere the whole image."""

Source = Literal[
    "target",
    "largest",
    "union",
    "persons_only",
    "whole_image_nobody_found",
    "whole_image_nobody_looked",
    "whole_image_second_crop",
]


class PersonCrop(NamedTuple):
    """A part of an image and why it was taken."""

    box: Box
    """Inside the image, at least one px."""
    source: Source
    keep: tuple[Box, ...] = ()
    """Only these boxes are not blacked out; none: everything is kept."""


def choose_person(
    persons: Sequence[Detection] | None, target: Box | None, size: tuple[int, int], policy: PersonPolicy = "largest"
) -> PersonCrop:
    """The person view of an image.

    persons: what a detector found; None if no detector was run.  target: the person meant by the data set.  size: width
    and height of the image, px. Without a person it is the whole image, and `source` says why. People of whom less than
    a px is in the image don't count.
    Raises BoxError for a target that does not touch the image.
    """
    whole = Box(0, 0, *size)
    if policy == "second_crop":
        return PersonCrop(whole, "whole_image_second_crop")
    if target is not None and policy == "largest":
        return PersonCrop(touched_box(target, *size), "target")
    seen = list(_seen(persons or (), size))
    boxes = [] if target is None else [touched_box(target, *size)]
    boxes += [person.box for person in seen]
    if not boxes:
        return PersonCrop(whole, "whole_image_nobody_looked" if persons is None else "whole_image_nobody_found")
    if policy == "union":
        return PersonCrop(union_box(boxes), "union")
    if policy == "persons_only":
        return PersonCrop(whole, "persons_only", tuple(boxes))
    return PersonCrop(max(seen, key=lambda person: person.box.area * person.confidence).box, "largest")


def _seen(persons: Sequence[Detection], size: tuple[int, int]) -> Iterator[Detection]:
    """People clipped to the image, without those of whom less than a px is in it."""
    for person in persons:
        try:
            yield Detection(clip_box(person.box, *size), person.confidence)
        except BoxError:
            continue
