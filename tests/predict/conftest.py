"""A tiny classifier, and a predictor with it."""

from pathlib import Path

import pytest

from tests.predict.networks import tiny_network
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network(tmp_path_factory.mktemp("models") / "scene.onnx")


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor(Network.open(model, threads=1))
