"""A predictor with a tiny classifier."""

import pytest

from tests.predict.networks import tiny_network
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(Network.open(tiny_network(tmp_path_factory.mktemp("models") / "scene.onnx"), threads=1))
