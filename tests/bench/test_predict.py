"""The benchmark of prediction: its figures, its progress, and new processes without torch."""

import pytest

from tests.runs import finetuned
from uniemox.bench import predict
from uniemox.bench.predict import bench_predict
from uniemox.cli.bench import _growth
from uniemox.data.source import open_data


@pytest.mark.thorough
def test_bench_predict_measures_both_networks_and_imports_no_torch() -> None:
    done: list[tuple[int, int]] = []
    result = bench_predict(
        open_data("synthetic:4"),
        model=str(finetuned("probe")),
        finder="embedded",
        soak=6,
        on_progress=lambda *counts: done.append(counts),
    )
    assert result.torch_images_per_s is not None
    assert result.ratio == pytest.approx(result.images_per_s / result.torch_images_per_s)
    assert (result.images, result.imports_torch) == (4, False)
    assert 20 < result.peak_rss_mb < 220
    assert result.start_s > 0.05
    assert result.memory_growth_mb is not None
    assert result.with_people_images_per_s is not None
    assert result.with_people_images_per_s > 0
    assert result.folder_peak_rss_mb > 20
    assert result.with_faces_images_per_s > 0
    # Three passes each of ours, with people, with faces, and of torch; and the soak.
    total = 12 * 4 + 6
    assert done[-1] == (total, total)
    assert done == sorted(done)


def test_system_without_proc_reports_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "FRESH_PROCESS", predict.FRESH_PROCESS.replace("/proc/self/status", "/nowhere/status"))
    images = [sample.image.read() for sample in open_data("synthetic:1").samples]
    seconds, peak_mb, has_torch = predict._fresh_process(None, None, images)
    assert (seconds > 0.05, peak_mb, has_torch) == (True, None, False)


def test_memory_growth_names_the_first_measured_image() -> None:
    """A soak of fewer than 4,000 images is measured from its middle."""
    assert _growth(0.25, 1000, "image") == "\nmemory grew by 0.2 MB between image 500 and image 1,000"
    assert _growth(0.25, 50000, "image") == "\nmemory grew by 0.2 MB between image 2,000 and image 50,000"
    assert _growth(None, 1000, "image") == ""
