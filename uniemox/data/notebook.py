"""A data set as a notebook shows it."""

from collections import Counter
from typing import TYPE_CHECKING

from PIL import ImageOps

from uniemox.errors import ImageError
from uniemox.io.html import Html, element, join, scaled_image, table
from uniemox.io.images import MinSides, decode

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet, Sample

MAX_IMAGES, SIDE_PX = 8, 112


def data_html(data: "DataSet") -> Html:
    """Its name, how many samples each split has of each label, and the first image of up to eight labels."""
    splits = sorted({sample.split or "all" for sample in data.samples})
    counts = Counter((data.label_of(sample) or "no label", sample.split or "all") for sample in data.samples)
    words = [*data.labels.labels, "no label"]
    rows = [
        (word, *(f"{counts[word, split]:,}" for split in splits))
        for word in words
        if any(counts[word, s] for s in splits)
    ]
    firsts = {sample.label: sample for sample in reversed(data.samples) if sample.label is not None}
    images = [_image(data, firsts[label]) for label in sorted(firsts)[:MAX_IMAGES]]
    head = element("p", element("b", data.name), f": {len(data):,} samples, {data.labels.name} ({data.labels.kind})")
    notes = (element("p", note) for note in data.notes)
    row = element("div", *images, style="display:flex;flex-wrap:wrap;gap:6px")
    return join([head, table(data.name, ("label", *splits), rows), *notes, row])


def _image(data: "DataSet", sample: "Sample") -> Html:
    try:
        image, _ = decode(sample.image.read(), str(sample.image), shrink=MinSides(short_px=SIDE_PX))
    except (OSError, ImageError) as error:
        return element("span", str(error))
    square = ImageOps.fit(image, (SIDE_PX, SIDE_PX))
    word = data.label_of(sample) or ""
    return element("figure", scaled_image(square, sample.key, max_side_px=SIDE_PX), element("figcaption", word))
