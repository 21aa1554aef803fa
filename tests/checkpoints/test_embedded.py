"""The encoders of the models in the package, as torch networks that can be trained."""

import numpy as np
import pytest
import torch
from torch import nn

from uniemox.checkpoints.onnx_encoders import load_embedded
from uniemox.predict.opening import open_network
from uniemox.views.patches import PixelStats, normalise


@pytest.mark.parametrize(("name", "width"), [("embedded", 2880), ("small", 1280)])
def test_features_equal_those_of_the_onnx_file(name: str, width: int) -> None:
    """Tolerance: float32 on both sides, where onnxruntime reorders sums."""
    encoder, info = load_embedded(name)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, info.size, info.size), np.uint8)
    expected = open_network(name).answer([{"scene": view} for view in pixels], with_features=True).features
    stats = PixelStats(info.mean, info.std)
    with torch.no_grad():
        features = encoder(normalise(torch.from_numpy(pixels), torch.device("cpu"), stats)).numpy()
    assert features.shape == (2, width)
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_batch_norms_are_identity_but_for_the_bias_of_their_convolution() -> None:
    encoder, _ = load_embedded("small")
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 52
    for norm in norms:
        x = torch.randn(2, norm.num_features, 1, 1)
        shift = norm.bias.detach().reshape(1, -1, 1, 1)
        torch.testing.assert_close(
            nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps),
            x + shift,
        )
