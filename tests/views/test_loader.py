"""Batches: the same whatever the number of workers and processes, repeatable from anywhere, broken images named."""

import multiprocessing
import tempfile
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.data.order import RunOrder
from uniemox.data.sample import Broken
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount, PackedSamples, ViewBatch, ViewDataset, build_loader
from uniemox.views.transforms import TrainViews


@pytest.fixture
def dataset(tmp_path: Path) -> ViewDataset:
    data = open_data(f"folder:{class_folders(tmp_path / 'data', each=6)}")
    return ViewDataset(data.samples, TrainViews(ViewConfig(size=32), seed=0))


@pytest.mark.thorough
@pytest.mark.portable
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_batches_do_not_depend_on_workers_or_processes(
    dataset: ViewDataset, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniemox.views.loader.loader_context", lambda: multiprocessing.get_context(method))

    def run(workers: int, start: int = 6, **options: int) -> list[ViewBatch]:
        # Steps 6 to 8 are the third epoch.
        order = RunOrder(len(dataset), batch_size=4, seed=1, start=start, steps=9, **options)
        return list(build_loader(dataset, order, workers))

    batches = run(0)
    of_workers = run(2)
    assert len(batches) == 3
    for a, b in zip(batches, of_workers, strict=True):
        assert torch.equal(a.scene, b.scene)
        assert torch.equal(a.person, b.person)
        assert a.samples == b.samples
    later = run(2, start=8)
    assert torch.equal(later[0].scene, batches[2].scene)
    of_ranks = [run(0, rank=rank, processes=2) for rank in (0, 1)]
    for batch, first, second in zip(batches, *of_ranks, strict=True):
        assert torch.equal(batch.scene, torch.cat([first.scene, second.scene]))


def test_a_batch_is_copied_to_pinned_memory(dataset: ViewDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's loader pins types that it knows, and calls pin_memory of other objects if they have it."""
    batch = next(iter(build_loader(dataset, [[(0, 0), (0, 1)]], 0)))
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: pinned.append(tensor) or tensor)
    assert pin_memory(batch) == batch
    assert [id(tensor) for tensor in pinned] == [id(batch.scene), id(batch.person)]


def test_packed_samples_equal_the_samples(dataset: ViewDataset) -> None:
    samples = list(dataset.samples)
    packed = PackedSamples(samples)
    assert list(packed) == samples
    assert packed[-1] == samples[-1]
    assert packed[2:5] == samples[2:5]
    with pytest.raises(IndexError):
        packed[len(samples)]
    assert list(PackedSamples([])) == []


def test_broken_images_are_left_out_and_named(dataset: ViewDataset) -> None:
    broken = Path(str(dataset.samples[3].image))
    broken.write_bytes(jpeg_of(draw_image(0))[:3000])
    Path(str(dataset.samples[5].image)).unlink()
    batches = list(build_loader(dataset, RunOrder(12, batch_size=6, seed=0, steps=2), 0))
    assert sum(len(batch.scene) for batch in batches) == 10
    reasons = dict(entry for batch in batches for entry in batch.broken)
    assert reasons.keys() == {dataset.samples[3].key, dataset.samples[5].key}
    assert f"{broken}: cut off or corrupt" in reasons[dataset.samples[3].key]


def test_a_batch_of_broken_images_is_empty(dataset: ViewDataset) -> None:
    for sample in dataset.samples:
        Path(str(sample.image)).write_bytes(b"")
    (batch,) = build_loader(dataset, RunOrder(12, batch_size=12, seed=0, steps=1), 0)
    assert len(batch.scene) == 0
    assert len(batch.broken) == 12


def test_too_many_broken_images_stop() -> None:
    count = BrokenCount(max_unreadable=2)
    count.add([Broken("a", "a: cut off"), Broken("b", "b: empty")])
    # The next epoch meets it again.
    count.add([Broken("a", "a: cut off")])
    assert count.reasons == {"a": "a: cut off", "b": "b: empty"}
    with pytest.raises(DataError, match=r"3 images can't be read, more than the 2 .*c: gone.*--exclude"):
        count.add([Broken("c", "c: gone")])
    with pytest.raises(DataError, match="a: cut off"):
        BrokenCount(max_unreadable=0).add([Broken("a", "a: cut off")])


def test_a_folder_too_long_for_sockets_is_refused(
    dataset: ViewDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch would wait for ever for the first batch, as its feeding thread dies."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    with pytest.raises(ConfigError, match="set TMPDIR to one of at most 71 characters"):
        build_loader(dataset, [[(0, 0)]], workers=1)
