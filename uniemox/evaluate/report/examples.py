"""The images of which a classifier was surest, right and wrong."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.errors import ImageError, UniemoxError
from uniemox.evaluate.run_records import Predictions, SavedEvaluation
from uniemox.io.html import Html, element, percent, scaled_image

SHOWN = 6  # right ones, and as many wrong ones
MAX_SIDE_PX = 320  # twice as wide as it is shown, for fine screens
TOP = 3  # probabilities under an image


class ImageLikes:
    """The images of the data sets that were scored; each set is opened once."""

    def __init__(self) -> None:
        self.opened: dict[str, Mapping[str, Sample] | str] = {}

    def of(self, source: str) -> Mapping[str, Sample] | str:
        """Samples by key; or, where the data can't be opened any more, why.

        source: as `open_data`.
        """
        if source not in self.opened:
            try:
                self.opened[source] = {sample.key: sample for sample in open_data(source, with_texts=False).samples}
            except (UniemoxError, OSError) as error:
                self.opened[source] = str(error)
        return self.opened[source]


def examples(evaluation: SavedEvaluation, found: Predictions, images: ImageLikes) -> list[Html]:
    """The surest right and the surest wrong answers; images that can't be read any more are left out."""
    samples = images.of(evaluation.data)
    if isinstance(samples, str):
        return [element("p", f"No example images: the data can't be opened here. {samples}", class_="missing")]
    parts = []
    for title, chosen in (("Surest and right", found.is_right), ("Surest and wrong", ~found.is_right)):
        order = [int(place) for place in surest(found, chosen)]
        shown = [_example(place, found, evaluation.values["labels"], samples.get(found.keys[place])) for place in order]
        there = [example for example in shown if example is not None]
        parts.append(element("h4", title))
        if there:
            parts.append(element("ul", *there, class_="examples"))
        if len(there) < len(shown):
            parts.append(element("p", f"{len(shown) - len(there)} more can't be read any more.", class_="note"))
        if not shown:
            parts.append(element("p", "There is none.", class_="note"))
    return parts


def surest(found: Predictions, chosen: np.ndarray) -> np.ndarray:
    """Places of the answers with the highest probability among the chosen; of equals the first.

    chosen: (N,) of bool.  Returns at most SHOWN places.
    """
    places = np.nonzero(chosen)[0]
    top = found.probabilities[places].max(axis=1) if len(places) else np.empty(0)
    return places[np.argsort(-top, kind="stable")[:SHOWN]]


def _example(place: int, found: Predictions, labels: list[str], sample: Sample | None) -> Html | None:
    """An image, what it is, and what was said; None if it can't be read."""
    if sample is None:
        return None
    try:
        image, full = decode_sample(sample, lambda width, height: max(width, height) / MAX_SIDE_PX)
    except ImageError:
        return None
    true, predicted = labels[found.labels[place]], labels[found.predicted[place]]
    shares = found.probabilities[place]
    order = np.argsort(-shares, kind="stable")[:TOP]
    bars = [_share(labels[i], float(shares[i]), is_true=i == found.labels[place]) for i in order]
    alt = f"{sample.key}: true {true}, predicted {predicted} ({percent(shares.max())})"
    caption = element("figcaption", "true: ", element("b", true), element("ol", *bars, class_="shares"), sample.key)
    shown = scaled_image(_framed(image, full, sample), alt, max_side_px=MAX_SIDE_PX)
    return element("li", element("figure", shown, caption))


def _share(label: str, share: float, *, is_true: bool) -> Html:
    bar = element("i", style=f"width:{100 * share:.1f}%")
    parts = (bar, element("span", label), element("span", percent(share)))
    return element("li", *parts, class_="true" if is_true else "other")


def _framed(image: Image.Image, full: tuple[int, int], sample: Sample) -> Image.Image:
    """The person meant in a frame, where the data set names one; others of the image are other samples."""
    box = sample.target_box
    if box is None:
        return image
    across, up = image.width / full[0], image.height / full[1]
    corners = [(box.x1 * across, box.y1 * up), (box.x2 * across, box.y2 * up)]
    ImageDraw.Draw(image).rectangle(corners, outline="#ffd400", width=max(2, image.width // 100))
    return image
