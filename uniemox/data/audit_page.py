"""Audit of a data set as one self-contained HTML page."""

from pathlib import Path
from typing import Any

from uniemox.data.audit import GROUPS, Audit, Group, Member
from uniemox.data.sample import decode_sample
from uniemox.errors import ImageError
from uniemox.io.html import jpeg_url, write_html

MAX_GROUPS, MAX_IMAGES = 40, 12  # shown per kind and per group; the JSON has all
SIDE_PX = 112
TITLES = {
    "corrupt": ("Can't be read", "Broken or cut-off files."),
    "wrong_endings": ("Wrong endings", "The file's ending does not match its format."),
    "odd_modes": ("Odd modes", "Palettes, transparency, CMYK, 16 bit, animations: readable, but please check them."),
    "wrong_boxes": ("Wrong boxes", "The target person's box does not touch the image."),
    "exact_duplicates": ("Exact duplicates", "The same bytes."),
    "near_duplicates": ("Near duplicates", "The same image, re-encoded, scaled, mirrored or slightly cropped."),
    "placeholders": ("Placeholders", "One image at least 5 times under at least 3 labels."),
    "label_conflicts": ("Contradicting labels", "One image under several labels."),
    "leaks": ("Leaks", "One image in several splits, or in both data sets."),
}


def write_page(audit: Audit, path: Path) -> None:
    """Write the page. Raises DataError if the file can't be written."""
    totals = {label: sum(counts.values()) for label, counts in audit.classes.items()}
    largest = max(totals.values(), default=0) or 1
    write_html(
        path,
        "data/audit_page.html",
        title=audit.name,
        found=audit,
        splits=list(next(iter(audit.classes.values()), {})),
        classes=[(label, counts, totals[label] / largest) for label, counts in audit.classes.items()],
        sections=[_section(name, getattr(audit, name)) for name in GROUPS],
    )


def _section(name: str, groups: list[Group]) -> dict[str, Any]:
    """Return the groups of one kind for the template."""
    title, note = TITLES[name]
    return {
        "id": name,
        "title": title,
        "note": note,
        "groups": groups,
        "images": sum(len(group.members) for group in groups),
        "shown": [
            {
                "reason": group.reason,
                "images": [_image(member) for member in _one_of_each_label_first(group)[:MAX_IMAGES]],
                "more": max(len(group.members) - MAX_IMAGES, 0),
            }
            for group in groups[:MAX_GROUPS]
        ],
    }


def _one_of_each_label_first(group: Group) -> list[Member]:
    firsts = {id(member) for member in {member.label: member for member in reversed(group.members)}.values()}
    return sorted(group.members, key=lambda member: id(member) not in firsts)


def _image(member: Member) -> dict[str, str]:
    words = (member.label, member.split, "other data set" if member.is_other else "")
    view = {"words": " · ".join(filter(None, words)), "key": member.sample.key}
    try:
        image, _ = decode_sample(member.sample, lambda width, height: min(width, height) / SIDE_PX)
    except ImageError:
        return {**view, "url": ""}
    return {**view, "url": jpeg_url(image, max_side_px=2 * SIDE_PX, quality=80)}
