"""The same answers over a Ray cluster of two nodes; skipped where Ray is not installed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import tiny_network
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'uniemox[ray]'")
from ray.cluster_utils import Cluster  # noqa: E402

from uniemox.predict.predictor import predict_on_ray  # noqa: E402


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes on this machine, one core each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    made.add_node(num_cpus=1)
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_answer_as_one_process(cluster: Cluster, tmp_path: Path) -> None:
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    paths = []
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_of(draw_image(i)) if i != 7 else b"no image")
        paths.append(str(tmp_path / f"{i}.jpg"))
    open_predictor = partial(load, tiny_network(tmp_path / "model.onnx"), finder=None, threads=1)
    expected = {answer.path: answer for answer in open_predictor().predict_each(paths, labels="polarity")}
    found = list(predict_on_ray(paths, open_predictor, batch_size=4, labels="polarity"))
    assert len(found) == 40
    for answer in found:
        if isinstance(answer, Failure):
            assert answer == expected[answer.path]
            assert answer.path == paths[7]
        else:
            assert answer.scene == pytest.approx(expected[answer.path].scene, abs=1e-5)
