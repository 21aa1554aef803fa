"""The same answers over a Ray cluster of two nodes; skipped where Ray is not installed."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.drawn import draw_image, jpeg_of
from tests.hostile_images import every_hostile_file
from tests.predict.networks import tiny_network
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'uniemox[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from uniemox.predict.predictor import predict_on_ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes on this machine, one core each."""
    new_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    new_cluster.add_node(num_cpus=1)
    new_cluster.wait_for_nodes()
    ray.init(address=new_cluster.address, log_to_driver=False)
    yield new_cluster
    ray.shutdown()
    new_cluster.shutdown()


def test_two_nodes_answer_as_one_process(cluster: Cluster, tmp_path: Path) -> None:
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    paths = []
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_of(draw_image(i)) if i != 7 else b"no image")
        paths.append(str(tmp_path / f"{i}.jpg"))
    open_predictor = partial(load, tiny_network(tmp_path / "model.onnx"), finder=None, threads=1)
    expected = {answer.path: answer for answer in open_predictor().predict_each(paths, labels="polarity")}
    predictions = list(predict_on_ray(paths, open_predictor, batch_size=4, labels="polarity"))
    assert len(predictions) == 40
    for answer in predictions:
        if isinstance(answer, Failure):
            assert answer == expected[answer.path]
            assert answer.path == paths[7]
        else:
            assert answer.scene == pytest.approx(expected[answer.path].scene, abs=1e-5)


def test_a_strangers_folder_gives_the_same_errors_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    """Hostile images, pipes, devices, and names that are addresses, markup or no UTF-8; nothing stops the others."""
    photo = jpeg_of(draw_image(1))
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**32)
    for name, content in every_hostile_file().items():
        (tmp_path / f"{name}.jpg").write_bytes(content)
    not_utf8 = os.fsdecode(b"\xff\xfe.jpg")
    for name in ("http:127.0.0.1:9?x.jpg", "<img src=x>.jpg", "a\nb\x1b[31m.jpg", "=1+1.jpg", not_utf8):
        (tmp_path / name).write_bytes(photo)
    paths = sorted(str(path) for path in tmp_path.iterdir())
    open_predictor = partial(load, tiny_network(tmp_path / "model.onnx"), finder=None, threads=1)
    alone = [answer.to_dict() for answer in open_predictor().predict_each(paths)]
    on_cluster = [answer.to_dict() for answer in predict_on_ray(paths, open_predictor, batch_size=4)]
    assert [answer.get("error") for answer in on_cluster] == [answer.get("error") for answer in alone]
    assert [answer["path"] for answer in on_cluster] == paths
    assert sum("error" not in answer for answer in on_cluster) >= 5
