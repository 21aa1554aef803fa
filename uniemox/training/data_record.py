"""Identity of a run's data, as config.json describes them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uniemox.data.sample import DataSet, Sample


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Part of `describe_samples` that a resumed run compares."""

    sha256: str
    details_sha256: str | None = None
    """None: the version that began the run has not recorded it."""

    def is_of(self, samples: Mapping[str, Any]) -> bool:
        """Return True if the run began with the same samples.

        Args:
            samples: Result of `describe_samples`.
        """
        if self.sha256 != samples["sha256"]:
            return False
        return self.details_sha256 in (None, samples["details_sha256"])


def describe_data(data: DataSet) -> dict[str, Any]:
    """Return the identity of a data set: its name and labels, and the result of `describe_samples`."""
    labels = {"name": data.labels.name, "labels": list(data.labels.labels), "kind": data.labels.kind}
    description: dict[str, Any] = {"source": data.name, "labels": labels, **describe_samples(data.samples)}
    if data.parts:
        description["parts"] = [asdict(part) for part in data.parts]
    return description


def describe_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the number of samples, and two hashes over their fields.

    `sha256` is over the fields that every version has recorded, and `details_sha256` over those that it added since.
    Both depend on the order of the samples, which decides the batches, and neither on the folder of the images.
    """
    digest = hashlib.sha256()
    details = hashlib.sha256()
    for sample in samples:
        annotations = (sample.label, sample.distribution, sample.valence, sample.arousal, sample.split)
        values: tuple[object, ...] = (sample.key, *annotations, sample.text, sample.persons, sample.target_box)
        # Other samples keep the hash that earlier versions recorded.
        if sample.categories is not None or sample.dominance is not None:
            values = (*values, sample.categories, sample.dominance)
        # Names of files that are not UTF-8 contain surrogates.
        digest.update(repr(values).encode("utf-8", "surrogatepass"))
        annotation = sorted((sample.annotation or {}).items())
        details.update(repr((annotation, sample.domain, sample.group)).encode("utf-8", "surrogatepass"))
    return {"samples": len(samples), "sha256": digest.hexdigest(), "details_sha256": details.hexdigest()}
