"""People, checks and shards by a Ray cluster of two nodes are those of one process; skipped without Ray."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.data.detectors import Deadly, WhiteDetector, not_there
from tests.drawn import class_folders, jpeg_of
from uniemox.data.audit import audit
from uniemox.data.people import BATCH, detect_persons
from uniemox.data.processes import map_batches
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.errors import DetectorError
from uniemox.io.parallel import PoolConfig

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'uniemox[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

ON_RAY = PoolConfig(engine="ray")
ALONE = PoolConfig(workers=1)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two nodes on this machine, one core each."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    ray.init(address=nodes.address, log_to_driver=False)
    yield
    ray.shutdown()
    nodes.shutdown()


def test_two_nodes_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths are of this process's folder
    class_folders(tmp_path / "data", ("awe", "fear"), each=3 * BATCH)
    (tmp_path / "data" / "awe" / "3.jpg").write_bytes(b"no image")
    data = open_data("folder:data")
    alone = detect_persons(data, WhiteDetector, Path("alone.jsonl"), pool=ALONE)
    assert detect_persons(data, WhiteDetector, Path("ray.jsonl"), pool=ON_RAY) == alone
    assert Path("ray.jsonl").read_bytes() == Path("alone.jsonl").read_bytes()
    assert audit(data, pool=ON_RAY).as_dict() == audit(data, pool=ALONE).as_dict()
    for folder, pool in (("a", ALONE), ("b", ON_RAY)):
        write_shards(data, Path(folder), ShardConfig(samples=30, pool=pool))
    for name in (path.name for path in Path("a").iterdir()):
        assert (Path("a") / name).read_bytes() == (Path("b") / name).read_bytes()


def test_image_that_kills_its_worker_is_the_only_one_lost(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("awe", "fear"), each=2 * BATCH)
    data = open_data(f"folder:{root}")
    (root / data.samples[BATCH + 5].key).write_bytes(jpeg_of(Image.new("RGB", (40, 40), "red")))
    report = detect_persons(data, Deadly, tmp_path / "persons.jsonl", pool=ON_RAY)
    assert len(report.broken) == 1
    assert report.pictures == 4 * BATCH - 1
    assert "the worker process died" in report.broken[0]


def test_exception_of_a_worker_is_raised() -> None:
    with pytest.raises(DetectorError, match="no such detector"):
        list(map_batches(lambda: not_there().detect, [[], []], ON_RAY))
