"""Prediction on all machines of a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from uniemox.errors import ConfigError
from uniemox.io.ray_map import DIED, map_on_ray
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor


def predict_on_ray(
    paths: Iterable[str],
    open_predictor: Callable[[], Predictor],
    *,
    batch_size: int = 16,
    coverage: float | None = None,
    labels: str | None = None,
) -> Iterator[Prediction | Failure]:
    """What is said of each image, in the order of the paths.

    paths: of images, the same on every machine; relative ones are of this process's folder.  open_predictor: called
    once by every worker.  Other arguments as `Predictor.predict_each`.
    Which cluster: see `map_on_ray`. Raises MissingPackageError without Ray.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    rest, taken = iter(paths), []

    def batches() -> Iterator[list[str]]:
        while batch := list(islice(rest, batch_size)):
            taken.append(batch)
            yield batch

    open_work = partial(_open_work, open_predictor, coverage, labels)
    for answers in map_on_ray(open_work, batches()):
        batch = taken.pop(0)
        yield from [Failure(path=path, error=f"{path}: {DIED}") for path in batch] if answers is None else answers


def _open_work(
    open_predictor: Callable[[], Predictor], coverage: float | None, labels: str | None
) -> Callable[[Sequence[str]], list[Prediction | Failure]]:
    predictor = open_predictor()

    def work(paths: Sequence[str]) -> list[Prediction | Failure]:
        return list(predictor.predict_each(paths, batch_size=len(paths), coverage=coverage, labels=labels))

    return work
