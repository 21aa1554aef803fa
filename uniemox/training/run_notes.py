"""Facts about a run that its user should know: where its weights come from, and images that can't be read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniemox.checkpoints.reading import LoadReport
from uniemox.checkpoints.timm_networks import TIMM, TimmSource, is_cached
from uniemox.data.unreadable import UNREADABLE_FILE, describe_unreadable, write_unreadable
from uniemox.io.files import write_file
from uniemox.io.weight_names import SCRATCH
from uniemox.training.callback import Callback
from uniemox.training.processes import gather_values, rank
from uniemox.training.run_folder import START_REPORT


def load_reports(encoder: Any) -> list[LoadReport]:
    """Return the load report of an encoder, or of each of several in its `encoders`."""
    parts = getattr(encoder, "encoders", [encoder])
    return [part.report for part in parts if hasattr(part, "report")]


def origin_of_weights(encoder: Any, init: str) -> str:
    """Describe the origin of an encoder's initial weights.

    Args:
        encoder: The encoder.
        init: Its name in the config, for encoders without a report.
    """
    if init.startswith(SCRATCH):
        return "random weights"
    return ", ".join(map(_origin_of, load_reports(encoder))) or init or "no weights"


def _origin_of(report: LoadReport) -> str:
    if report.method != "timm" or not report.path.startswith(TIMM):
        return f"{report.method} of {report.path}"
    source = TimmSource.parse(report.path)
    if source.file:
        return report.path
    return f"{report.path}, {'in the cache' if is_cached(source.name) else 'fetched from the hub when it starts'}"


def record_start(run: Path, encoder: Any, callback: Callback) -> None:
    """Write the load reports of an encoder's initial weights to the run's folder.

    Notes name a moving average, and weights of unknown normalisation.

    Args:
        run: Folder of the run.
        encoder: Encoder with a `report`, or several in its `encoders`. Encoders of this package's own models have no
            report and are left out.
        callback: Receives the notes.
    """
    reports = load_reports(encoder)
    if reports:
        write_file(run / START_REPORT, "".join(f"{report}\n" for report in reports))
    for report in reports:
        if report.is_average:
            callback.note(f"{report.path}: starts from {report.container}, the moving average of its weights")
    name_unknown_pixels(encoder, callback)


def name_unknown_pixels(encoder: Any, callback: Callback) -> None:
    """Note initial weights that don't say how their pixels are normalised.

    Args:
        encoder: Encoder, as for `record_start`.
        callback: Receives the notes.
    """
    for report in load_reports(encoder):
        if report.mean_std is None:
            callback.note(
                f"{report.path} does not say how its pixels are normalised: ImageNet's mean and deviation are used. "
                f"Some networks of timm need others: timm:NAME@{report.path} takes those of network NAME"
            )


def report_unreadable(run: Path, broken: Mapping[str, str], callback: Callback) -> None:
    """Write the images that any process could not read to the run's folder, and name them; all processes call it.

    Args:
        run: Folder of the run.
        broken: Reasons by key, for the images that this process could not read.
        callback: Receives a note per line of the summary.
    """
    merged: dict[str, str] = {}
    for part in gather_values(dict(broken)):
        merged |= part
    if rank() == 0:
        path = run / UNREADABLE_FILE
        write_unreadable(path, merged)
        for line in describe_unreadable(merged, path):
            callback.note(line)
