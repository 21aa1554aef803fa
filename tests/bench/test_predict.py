"""The speed of prediction is measured on what was asked, without torch in the fresh process."""

import pytest

from tests.runs import finetuned, one_thread
from uniemox.bench.predict import bench_predict
from uniemox.data.source import open_data


def test_both_sides_are_measured_and_the_fresh_process_has_no_torch() -> None:
    done: list[int] = []
    with one_thread():
        found = bench_predict(open_data("synthetic:4"), model=str(finetuned("probe")), soak=6, on_progress=done.append)
    assert found.torch_images_per_s is not None
    assert found.ratio == pytest.approx(found.images_per_s / found.torch_images_per_s)
    assert (found.images, found.imports_torch) == (4, False)
    assert 20 < found.peak_rss_mb < 220
    assert found.start_s > 0.05
    assert found.memory_growth_mb is not None
    assert done[-1] >= 6 * 4 + 6
    assert done == sorted(done)
    assert set(found.as_dict()) >= {"images_per_s", "ratio", "start_s", "peak_rss_mb"}
