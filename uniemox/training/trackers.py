"""Trackers of a run's curves and images besides TensorBoard: Weights & Biases or MLflow.

Server, account, and whether anything is sent are the tracker's own settings: WANDB_MODE=offline keeps the curves in the
run's folder; MLFLOW_TRACKING_URI names a server or a database.
"""

import time
import warnings
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Literal

from PIL import Image

from uniemox.data.source import public_name
from uniemox.errors import ConfigError, MissingPackageError
from uniemox.io.files import write_file
from uniemox.io.run_files import CONFIG
from uniemox.io.run_record import required_field
from uniemox.training.settings_record import by_dotted_name

# These files of a run hold the ID with which the tracker continues its own run.
WANDB_ID = "wandb_id.txt"
MLFLOW_ID = "mlflow_id.txt"
PROJECT = "uniemox"
"""Name of the W&B project and of the MLflow experiment."""
# MLflow refuses longer values of parameters.
MAX_PARAM_CHARACTERS = 6000
# With more unsent steps than this, the run waits for MLflow's server.
MAX_UNSENT_STEPS = 200


class _Wandb:
    """A run of Weights & Biases, in its project uniemox; a run that resumes is continued there."""

    def __init__(self, run: Path) -> None:
        try:
            import wandb  # noqa: PLC0415 - an extra
        except ImportError:
            raise MissingPackageError("save.tracker wandb needs Weights & Biases; run: pip install wandb") from None
        id_file = run / WANDB_ID
        run_id = id_file.read_text("utf-8").strip() if id_file.exists() else token_hex(8)
        try:
            self.run = wandb.init(
                project=PROJECT,
                name=_name_of(run),
                id=run_id,
                resume="allow",
                dir=run,
                config=_settings_of(run),
                settings=wandb.Settings(silent=True, x_disable_machine_info=True, x_executable="python", host="-"),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases does not start: {error}; WANDB_MODE=offline needs no account"
            ) from error
        write_file(id_file, run_id + "\n")
        self.image_type: Any = wandb.Image

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def image(self, step: int, name: str, image: Image.Image) -> None:
        self.run.log({name: self.image_type(image)}, step=step)

    def close(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


class _Mlflow:
    """A run of MLflow, in its experiment uniemox; a run that resumes is continued there."""

    def __init__(self, run: Path) -> None:
        try:
            from mlflow import MlflowClient, MlflowException  # noqa: PLC0415 - an extra
            from mlflow.entities import Metric, Param  # noqa: PLC0415
        except ImportError:
            raise MissingPackageError("save.tracker mlflow needs MLflow; run: pip install mlflow-skinny") from None
        self.metric: Any = Metric
        self.errors = (MlflowException, OSError)
        # Steps that the server may not have received.
        self.sent: deque[Any] = deque()
        id_file = run / MLFLOW_ID
        try:
            self.client = MlflowClient()
            if id_file.exists():
                self.id = id_file.read_text("utf-8").strip()
                self.client.update_run(self.id, status="RUNNING")
                return
            experiment = self.client.get_experiment_by_name(PROJECT)
            if experiment is None:
                experiment_id = self.client.create_experiment(PROJECT)
            else:
                experiment_id = experiment.experiment_id
            self.id = self.client.create_run(experiment_id, run_name=_name_of(run)).info.run_id
            settings = by_dotted_name(_settings_of(run)).items()
            params = [Param(name, str(value)[:MAX_PARAM_CHARACTERS]) for name, value in settings]
            self.client.log_batch(self.id, params=params)
        except self.errors as error:
            raise ConfigError(
                f"MLflow does not start: {error}; see MLFLOW_TRACKING_URI, and delete {id_file} if its run is gone"
            ) from error
        write_file(id_file, self.id + "\n")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        now_ms = time.time_ns() // 10**6
        points = [self.metric(name, value, now_ms, step) for name, value in values.items()]
        self.sent.append(self.client.log_batch(self.id, metrics=points, synchronous=False))
        if len(self.sent) > MAX_UNSENT_STEPS:
            self._wait_for_oldest()

    def _wait_for_oldest(self) -> None:
        try:
            self.sent.popleft().wait()
        except self.errors as error:
            warnings.warn(f"MLflow did not accept a step: {error}", stacklevel=3)

    def _wait_for_all(self) -> None:
        while self.sent:
            self._wait_for_oldest()

    def image(self, step: int, name: str, image: Image.Image) -> None:
        # MLflow reads the run's metrics first, and fails at a file of metrics that is being written.
        self._wait_for_all()
        # A server that does not answer costs the image, not the run.
        try:
            self.client.log_image(self.id, image, key=name, step=step)
        except self.errors as error:
            warnings.warn(f"MLflow did not accept the image {name} of step {step}: {error}", stacklevel=2)

    def close(self, *, failed: bool) -> None:
        self._wait_for_all()
        try:
            self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
        except self.errors as error:
            warnings.warn(f"MLflow did not accept the end of the run: {error}", stacklevel=2)


def open_tracker(run: Path, name: Literal["wandb", "mlflow"] | None) -> _Wandb | _Mlflow | None:
    """Open the tracker of a run that is used in addition to TensorBoard.

    Raises:
        MissingPackageError: If the tracker's package is not installed.
        ConfigError: If the tracker does not start.
    """
    if name is None:
        return None
    return _Wandb(run) if name == "wandb" else _Mlflow(run)


def _name_of(run: Path) -> str:
    return "/".join(run.absolute().parts[-2:])


def _settings_of(run: Path) -> dict[str, Any]:
    """Return the settings in the run's config.json, without this machine's folders."""
    if (run / CONFIG).exists():
        return _public(required_field(run, "config"))
    return {}


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _public(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_public(part) for part in value]
    if isinstance(value, str):
        return public_name(value)
    return value
