"""What a run writes down as it goes: metrics.jsonl, images, and what trackers take."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import Image

from uniemox.errors import DataError
from uniemox.io.files import METRICS, read_limited, write_text
from uniemox.training.trackers import open_trackers

IMAGES = "pictures"


class Journal:
    """The journal of one run.

    run: its folder.  step: steps that were done before; what a killed process wrote of later ones is taken out.
    is_written: False for all processes but the first, which write nothing.  tracker: see `open_trackers`.
    """

    def __init__(
        self, run: Path, step: int, *, is_written: bool = True, tracker: Literal["wandb", "mlflow"] | None = None
    ) -> None:
        self.run, self.is_written = run, is_written
        if not is_written:
            return
        path = run / METRICS
        kept = [line for line in read_metrics(run) if line["step"] <= step] if path.exists() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = path.open("a", encoding="utf-8")
        self.trackers = open_trackers(run, step, tracker)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.is_written:
            self.file.close()
            for tracker in self.trackers:
                tracker.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line, and a point of every curve.  step: steps that are done."""
        if self.is_written:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            for tracker in self.trackers:
                tracker.write(step, values)

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """An image of this step, as pictures/NAME-STEP.png."""
        if self.is_written:
            path = self.run / IMAGES / f"{name}-{step:08d}.png"
            path.parent.mkdir(exist_ok=True)
            image.save(path)
            for tracker in self.trackers:
                tracker.image(step, name, image)


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line that was cut off is left out.

    Raises DataError if there is no such file.
    """
    try:
        lines = read_limited(run / METRICS).decode().splitlines()
    except OSError as error:
        raise DataError(f"{run} has no metrics: {error}") from error
    values = []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise DataError(f"{run / METRICS}:{number}: not JSON ({error})") from error
    return values
