"""Outputs of a stranger's network that are not those of a classifier: the model is blamed, and no image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.drawn import draw_image
from tests.predict.networks import tiny_network
from uniemox.errors import CheckpointError
from uniemox.predict.opening import load


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("logits", np.zeros((3, 8))),
        ("logits", np.zeros((0, 8))),
        ("logits", np.zeros((1, 7))),
        ("logits", np.array([["a"] * 8])),
        ("logits", [np.zeros((1, 8))]),
        ("distance", np.zeros(())),
        ("distance", np.zeros((1, 3, 4, 4))),
        ("features", np.zeros((1, 4, 2, 2))),
        ("features", np.zeros((1, 0))),
    ],
)
def test_outputs_of_another_form_are_the_models_fault(
    name: str, values: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load(tiny_network(tmp_path / "m.onnx", distances=(5.0, 200.0), conformal_scores=(0.5,)), finder=None)
    image = draw_image(1)
    predictor.predict(image)
    session = predictor.network.engine._session  # type: ignore[attr-defined]
    run = session.run

    def odd(outputs: list[str], inputs: dict[str, Any]) -> list[Any]:
        return [
            values if output == name else value for output, value in zip(outputs, run(outputs, inputs), strict=True)
        ]

    monkeypatch.setattr(session, "run", odd)
    answer = predictor.embed if name == "features" else predictor.predict
    with pytest.raises(CheckpointError, match=rf"m\.onnx: has 8 labels, but gives .* as {name} of 1 views"):
        answer(image)
