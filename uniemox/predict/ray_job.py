"""Prediction on all machines of a Ray cluster, over Ray Data; it needs the extra `ray`."""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from uniemox.errors import ConfigError, MissingPackageError
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor

AT_ONCE = 50_000  # paths that are handed to the cluster together, so that a list of any length needs no more memory


def predict_on_ray(
    paths: Iterable[str],
    open_predictor: Callable[[], Predictor],
    *,
    batch_size: int = 16,
    coverage: float | None = None,
    labels: str | None = None,
) -> Iterator[Prediction | Failure]:
    """What is said of each image, in any order, as soon as a machine has answered.

    paths: of images, the same on every machine; relative ones are of this process's folder.  open_predictor: called
    once by every worker.  Other arguments as `Predictor.predict_each`.
    Uses the cluster that this process is connected to, else that of RAY_ADDRESS, else this machine alone.
    Raises MissingPackageError without Ray.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends figures of its use to its makers
    try:
        import ray  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415 - an extra
        import ray.data  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415
    except ImportError:
        raise MissingPackageError("--engine ray needs Ray; run: pip install 'uniemox[ray]'") from None
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    folder, rest = os.getcwd(), iter(paths)
    workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    while some := list(islice(rest, AT_ONCE)):
        rows = [{"path": path, "place": os.path.join(folder, path)} for path in some]
        parts = max(1, min(len(rows) // batch_size, 8 * workers))
        answers = ray.data.from_items(rows, override_num_blocks=parts).map_batches(
            _Worker,
            fn_constructor_args=(open_predictor, coverage, labels),
            batch_size=batch_size,
            num_cpus=1,
            concurrency=(1, workers),
        )
        for row in answers.iter_rows():
            yield _result(row["path"], row["answer"])


class _Worker:
    """A predictor on one core of the cluster."""

    def __init__(self, open_predictor: Callable[[], Predictor], coverage: float | None, labels: str | None) -> None:
        self.predictor, self.coverage, self.labels = open_predictor(), coverage, labels

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Answers, pickled, for a batch of paths."""
        places = [str(place) for place in batch["place"]]
        answers = self.predictor.predict_each(
            places, batch_size=len(places), coverage=self.coverage, labels=self.labels
        )
        return {"path": list(batch["path"]), "answer": [pickle.dumps(answer) for answer in answers]}


def _result(path: str, pickled: bytes) -> Prediction | Failure:
    """An answer with the path as it was given."""
    answer: Prediction | Failure = pickle.loads(pickled)  # noqa: S301 - what a worker of ours has written
    return replace(answer, path=path, source=path) if isinstance(answer, Prediction) else replace(answer, path=path)
