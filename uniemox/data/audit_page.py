"""The audit of a data set as one HTML page that holds its images."""

import base64
import html
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from uniemox.data.audit import GROUPS, Audit, Group, Member
from uniemox.data.sample import Sample, decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io.files import write_text

MAX_GROUPS, MAX_IMAGES = 40, 12  # shown of each kind, and of each group; the JSON has all
SIDE_PX = 112
TITLES = {
    "corrupt": ("Can't be read", "Broken or cut-off files."),
    "wrong_endings": ("Wrong endings", "The file is of another format than its name says."),
    "odd_modes": ("Odd modes", "Palettes, transparency, CMYK, 16 bit, animations: read, but worth a look."),
    "wrong_boxes": ("Wrong boxes", "The box of the person meant does not touch the image."),
    "exact_duplicates": ("Exact duplicates", "The same bytes."),
    "near_duplicates": ("Near duplicates", "The same image, encoded, scaled, mirrored or cropped a little."),
    "placeholders": ("Placeholders", "One image at least 5 times under at least 3 labels."),
    "label_conflicts": ("Contradicting labels", "One image under several labels."),
    "leaks": ("Leaks", "One image in several splits, or in both data sets."),
}
STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .2rem }
p.note, figcaption, td, th { color: color-mix(in srgb, currentColor 75%, transparent) }
.counts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0 }
.counts a { border: 1px solid #8886; border-radius: .5rem; padding: .4rem .8rem; text-decoration: none; color: inherit }
.counts b { font-size: 1.3rem; display: block } .counts .some b { color: #c2410c }
.group { border-top: 1px solid #8884; padding: .7rem 0; display: flex; flex-wrap: wrap; gap: .7rem; align-items: start }
figure { margin: 0; width: 112px } img, .gone { width: 112px; height: 112px; object-fit: contain; background: #8882 }
figcaption { font-size: .75rem; overflow-wrap: anywhere; line-height: 1.3 }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } .bar { background: #3b82f6; height: .6rem; border-radius: .2rem }
"""


def write_page(found: Audit, path: Path) -> None:
    """Write the page. Raises DataError if the file can't be written."""
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(found.name)}</title>",
        f"<style>{STYLE}</style><h1>Audit of {html.escape(found.name)}</h1>",
        f"<p>{found.count} samples; {len(found.exclude)} of them should be excluded.</p>",
        '<div class="counts">',
        *(f"<a {_link(found, name)}><b>{_images(found, name)}</b>{TITLES[name][0]}</a>" for name in GROUPS),
        "</div>",
        *_balance(found),
        *_drift(found),
        *(part for name in GROUPS for part in _section(name, getattr(found, name))),
    ]
    try:
        write_text(path, "\n".join(parts))
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror})") from error


def _link(found: Audit, name: str) -> str:
    return f'href="#{name}" class="some"' if getattr(found, name) else ""


def _images(found: Audit, name: str) -> int:
    return sum(len(group.members) for group in getattr(found, name))


def _section(name: str, groups: list[Group]) -> Iterator[str]:
    title, note = TITLES[name]
    if not groups:
        return
    yield f'<h2 id="{name}">{title}: {len(groups)} group{"s" if len(groups) > 1 else ""}</h2><p class="note">{note}</p>'
    for group in groups[:MAX_GROUPS]:
        yield '<div class="group">'
        for member in _one_of_each_label_first(group)[:MAX_IMAGES]:
            words = " · ".join(filter(None, (member.label, member.split, "other data set" if member.is_other else "")))
            yield (
                f"<figure>{_image(member.sample, group.reason)}<figcaption>{html.escape(words)}<br>"
                f"{html.escape(member.sample.key)}<br>{html.escape(group.reason)}</figcaption></figure>"
            )
        if len(group.members) > MAX_IMAGES:
            yield f"<p>and {len(group.members) - MAX_IMAGES} more</p>"
        yield "</div>"
    if len(groups) > MAX_GROUPS:
        yield f"<p>and {len(groups) - MAX_GROUPS} more groups; <code>--json</code> lists all of them</p>"


def _one_of_each_label_first(group: Group) -> list[Member]:
    firsts = {id(member) for member in {member.label: member for member in reversed(group.members)}.values()}
    return sorted(group.members, key=lambda member: id(member) not in firsts)


def _image(sample: Sample, reason: str) -> str:
    try:
        image, _ = decode_sample(sample, lambda width, height: min(width, height) / SIDE_PX)
    except ImageError:
        return f'<div class="gone" title="{html.escape(reason)}"></div>'
    image.thumbnail((2 * SIDE_PX, 2 * SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _balance(found: Audit) -> Iterable[str]:
    splits = list(next(iter(found.classes.values()), {}))
    largest = max((sum(row.values()) for row in found.classes.values()), default=0) or 1
    yield "<h2>Class balance</h2><table><tr><th>label</th>"
    yield "".join(f"<th>{html.escape(split)}</th>" for split in splits) + "<th></th></tr>"
    for label, row in found.classes.items():
        cells = "".join(f"<td>{row[split]}</td>" for split in splits)
        bar = f'<div class="bar" style="width:{20 * sum(row.values()) / largest:.2f}rem"></div>'
        yield f"<tr><td>{html.escape(label)}</td>{cells}<td>{bar}</td></tr>"
    yield "</table>"


def _drift(found: Audit) -> Iterable[str]:
    if not found.drift:
        return
    yield '<h2>Drift of colours between splits</h2><p class="note">Total variation between mean histograms, 0 to 1; '
    yield "random splits of these sizes stay below the last column 95 times of 100.</p><table>"
    yield "<tr><th>splits</th><th>distance</th><th>by chance</th></tr>"
    for drift in found.drift:
        mark = " ⚠" if drift.distance > drift.by_chance else ""
        names = html.escape(" and ".join(drift.splits))
        yield f"<tr><td>{names}</td><td>{drift.distance:.3f}{mark}</td><td>{drift.by_chance:.3f}</td></tr>"
    yield "</table>"
