"""Position tables at another size, rule by rule: each as its method's own fine-tuning resizes it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints.test_published import file_of
from tests.networks import load_npz
from uniemox.checkpoints import load_published
from uniemox.checkpoints.resizing import (
    growth,
    resize_bias_bicubic,
    resize_bias_geometric,
    resize_position,
    resize_position_dino,
)
from uniemox.model.encoder import sincos_position


def test_maes_table_is_resized_by_plain_bicubic_interpolation() -> None:
    table = torch.randn(1, 17, 6)
    resized = resize_position(table, (6, 6))
    grid = table[:, 1:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(6, 6), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized[:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(resized[:, :1], table[:, :1])


@pytest.mark.parametrize(("extra", "grid"), [(0, (6, 6)), (1, (3, 5)), (2, (4, 4))])
def test_a_table_without_numbers_gets_the_same_shape(extra: int, grid: tuple[int, int]) -> None:
    """Runs are checked on torch's meta device before they start."""
    table = torch.randn(1, extra + 16, 6, dtype=torch.float16)
    resized = resize_position(table, grid, extra=extra)
    drafted = resize_position(table.to("meta"), grid, extra=extra)
    assert (drafted.shape, drafted.dtype, drafted.is_meta) == (resized.shape, resized.dtype, True)


def test_dinos_scale_is_a_tenth_of_a_patch_too_large() -> None:
    table = torch.randn(1, 17, 6)
    grid = table[:, 1:].reshape(1, 4, 4, 6).permute(0, 3, 1, 2)
    for rows, columns in ((6, 6), (3, 5), (9, 2)):
        # As in the official forward pass.
        scale = ((rows + 0.1) / 4, (columns + 0.1) / 4)
        expected = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic")
        resized = resize_position_dino(table, (rows, columns))
        torch.testing.assert_close(resized[:, 1:], expected.permute(0, 2, 3, 1).reshape(1, -1, 6))
        assert torch.equal(resized[:, :1], table[:, :1])
    assert (resize_position_dino(table, (6, 6)) - resize_position(table, (6, 6))).abs().max() > 1e-3


@pytest.mark.parametrize(("source", "target"), [(4, 5), (6, 7), (7, 12), (14, 24), (14, 12), (7, 6)])
def test_the_geometric_grid_is_a_spline_through_the_source(source: int, target: int) -> None:
    """A table that is a cubic of the distances comes back as that cubic inside the source grid."""
    size = 2 * source - 1
    new_size = 2 * target - 1
    q = growth(source - 1, target - 1)
    nodes = np.cumsum(q ** np.arange(source - 1))
    x = torch.from_numpy(np.concatenate([-nodes[::-1], [0], nodes]))
    reach = float(nodes[-1])

    def cubic(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        row, column = (v.clamp(-reach, reach) / reach for v in (row, column))
        return (row**3 - 0.5 * row)[:, None] * 2 + (column**2 + column**3)[None]

    table = torch.stack([cubic(x, x), -cubic(x, x)], dim=-1).reshape(size * size, 2)
    extra_rows = torch.randn(3, 2)
    resized = resize_bias_geometric(torch.cat([table.float(), extra_rows]), new_size**2 + 3, extra=3)
    steps = torch.arange(-(target - 1), target, dtype=torch.float64)
    torch.testing.assert_close(resized[:-3, 0].double(), cubic(steps, steps).flatten(), rtol=1e-4, atol=2e-5)
    assert torch.equal(resized[-3:], extra_rows)


def test_growth_equals_the_official_bisections() -> None:
    """Values of the official loop, for the published sizes."""
    for source, target, expected in [(5, 6, 1.0912812996), (13, 23, 1.0903074455), (5, 11, 1.4026286125)]:
        assert growth(source, target) == pytest.approx(expected, abs=1e-9)
    # A smaller table ends at the lower bound.
    assert growth(13, 11) == pytest.approx(1.0100009346, abs=1e-9)


def test_swin_table_of_a_larger_window_equals_the_official_one(golden: Path) -> None:
    """golden/checkpoints/simmim_swin, rel_pos_table_w5 (official code, 1e-5)."""
    expected = load_npz(golden / "simmim_swin" / "expected.npz")["rel_pos_table_w5"].float()
    encoder = load_published(file_of(golden, "simmim_swin"), image_size=160)
    table = encoder.layers[0].blocks[0].attn.relative_position_bias_table
    torch.testing.assert_close(table.detach(), expected, rtol=1e-5, atol=1e-5)
    assert len(encoder.report.resized) == 8


def test_mixmaes_table_is_resized_by_plain_bicubic_interpolation() -> None:
    table = torch.randn(15 * 15, 2)
    per_head = table.T.reshape(1, 2, 15, 15)
    expected = torch.nn.functional.interpolate(per_head, size=(19, 19), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resize_bias_bicubic(table, 19 * 19), expected.reshape(2, 361).T)
    assert (resize_bias_bicubic(table, 19 * 19) - resize_bias_geometric(table, 19 * 19)).abs().max() > 1e-2


def test_caes_tables_are_replaced_at_another_size(golden: Path) -> None:
    encoder = load_published(file_of(golden, "cae"), heads=3, image_size=80)
    torch.testing.assert_close(encoder.pos_embed, sincos_position(48, (5, 5), rows_first=True))
    tables = [p for n, p in encoder.named_parameters() if n.endswith("relative_position_bias_table")]
    assert len(tables) == 3
    assert all((table == 0).all() for table in tables)
