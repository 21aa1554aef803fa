"""Records of a training run: metrics.jsonl and images, for TensorBoard and other trackers too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from uniemox.io.files import write_file
from uniemox.io.images import encode_image
from uniemox.io.run_files import METRICS
from uniemox.io.typed import check_json, read_json_lines
from uniemox.training.processes import rank
from uniemox.training.trackers import open_tracker

IMAGES = "pictures"
TENSORBOARD = "tensorboard"


class Journal:
    """Journal of one run.

    Only the first process writes.

    Args:
        run: Folder of the run.
        step: Number of steps done; a killed process's records of later steps are removed.
        tracker: Tracker that also receives the values, see `open_tracker`; None: none.
    """

    def __init__(self, run: Path, step: int, tracker: Literal["wandb", "mlflow"] | None = None) -> None:
        self.run = run
        self.is_written = rank() == 0
        if not self.is_written:
            return
        path = run / METRICS
        earlier_lines = []
        if path.exists():
            earlier_lines = [line for line in read_metrics(run) if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in earlier_lines))
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1)
        self.tracker = open_tracker(run, tracker)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.is_written:
            self.file.close()
            self.board.close()
            if self.tracker is not None:
                self.tracker.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line to metrics.jsonl, and one point to every curve.

        Args:
            step: Number of steps done.
            values: Values by name.
        """
        if self.is_written:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            if self.tracker is not None:
                self.tracker.write(step, values)

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Save an image of this step as pictures/NAME-STEP.png."""
        if self.is_written:
            path = self.run / IMAGES / f"{name}-{step:08d}.png"
            write_file(path, encode_image(image, "PNG"))
            if self.tracker is not None:
                self.tracker.image(step, name, image)


# Whole numbers beyond this are not exact as floats.
MAX_WHOLE = 2**53
LoggedValue = Annotated[int, Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)] | float


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """The field that every line has; the others are losses and other values by name."""

    step: int


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Read the lines of a run's metrics.jsonl, without an incomplete last line.

    Raises:
        DataError: If there is no such file, or if a line is not an object with a step.
    """
    remedy = "copy the run's folder again"
    values = []
    # A process that was killed while writing leaves half a line at the end.
    for where, value in read_json_lines(run / METRICS, dict[str, LoggedValue], remedy=remedy, may_be_cut=True):
        check_json(value, MetricsLine, where, remedy=remedy)
        values.append(value)
    return values
