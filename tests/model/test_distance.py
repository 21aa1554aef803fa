"""The distance from training images is that of the Gaussian which probabilistic PCA fits to their directions."""

import numpy as np
import pytest
import torch
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.model.distance import MAX_AXES, Distance


def cloud(count: int, width: int, seed: int = 0) -> Tensor:
    """Features around one direction, wide along few axes."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.linspace(1.0, 0.05, width)
    return 3 + torch.randn(count, width, generator=generator) * scales


def test_squared_distance_equals_its_plain_form_in_numpy() -> None:
    features = cloud(300, 12)
    new = cloud(20, 12, seed=1)
    distances = Distance.fit(features).squared_distance(new).numpy()
    units = features.numpy() / np.linalg.norm(features.numpy(), axis=1, keepdims=True)
    mean = units.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(units.T, bias=True).astype(float))
    count = len(values) // 2
    variances = np.concatenate([np.full(len(values) - count, values[:-count].mean()), values[-count:]])
    offset = new.numpy() / np.linalg.norm(new.numpy(), axis=1, keepdims=True) - mean
    expected = ((offset @ axes) ** 2 / variances).sum(axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-2)


def test_other_directions_are_far_and_lengths_don_t_count() -> None:
    features = cloud(400, 200)
    distance = Distance.fit(features)
    assert len(distance.axes) == MAX_AXES
    near, far = (distance.squared_distance(sign * cloud(50, 200, seed=2)) for sign in (1, -1))
    assert near.max() < far.min()
    measure = distance.squared_distance
    torch.testing.assert_close(measure(7 * features[:9]), measure(features[:9]), rtol=1e-3, atol=1e-2)
    assert measure(features).mean() == pytest.approx(200, rel=0.2)


def test_fit_is_repeatable_and_leaves_torchs_generator_unchanged() -> None:
    torch.manual_seed(1)
    first = Distance.fit(cloud(64, 32)).state_dict()
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(torch.rand(()), after)
    second = Distance.fit(cloud(64, 32)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_few_images_are_refused_and_equal_ones_have_finite_distances() -> None:
    with pytest.raises(ShapeError, match="at least 8 images"):
        Distance.fit(cloud(7, 12))
    same = Distance.fit(cloud(1, 12).repeat(9, 1))
    assert torch.isfinite(same(cloud(3, 12), torch.zeros(3, 4))).all()


def test_logarithms_of_probabilities_have_no_energy() -> None:
    """As of a k-NN head; the noise of their rounding had a weight of millions."""
    features = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    shares = torch.rand(64, 5, generator=torch.Generator().manual_seed(1)).log_softmax(dim=1)
    distance = Distance.fit(features, shares)
    assert distance.weights[1] == 0
    assert torch.equal(distance(features, shares), distance(features, torch.zeros_like(shares)))


def test_confident_logits_reduce_the_distance() -> None:
    """Both parts in units of their deviation over the training images."""
    features = cloud(300, 12)
    logits = 3 * torch.randn(300, 8, generator=torch.Generator().manual_seed(1))
    distance = Distance.fit(features, logits)
    far = distance.squared_distance(features)
    energy = -logits.logsumexp(dim=1)
    torch.testing.assert_close(
        distance(features, logits), far / far.std() + energy / energy.std(), rtol=1e-4, atol=1e-4
    )
    assert (distance(features, 2 * logits.abs()) < distance(features, logits)).all()
    plain = Distance.fit(features)
    torch.testing.assert_close(plain(features, logits), far / far.std(), rtol=1e-4, atol=1e-4)
