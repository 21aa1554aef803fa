"""The speed of prediction is measured on what was asked, without torch in the fresh process."""

import pytest

from tests.runs import finetuned
from uniemox.bench import predict
from uniemox.bench.predict import bench_predict
from uniemox.cli.bench import _growth
from uniemox.data.source import open_data


def test_both_sides_are_measured_and_the_fresh_process_has_no_torch() -> None:
    done: list[tuple[int, int]] = []
    found = bench_predict(
        open_data("synthetic:4"),
        model=str(finetuned("probe")),
        finder="embedded",
        soak=6,
        on_progress=lambda *of: done.append(of),
    )
    assert found.torch_images_per_s is not None
    assert found.ratio == pytest.approx(found.images_per_s / found.torch_images_per_s)
    assert (found.images, found.imports_torch) == (4, False)
    assert 20 < found.peak_rss_mb < 220
    assert found.start_s > 0.05
    assert found.memory_growth_mb is not None
    assert found.with_people_images_per_s is not None
    assert found.with_people_images_per_s > 0
    assert found.folder_peak_rss_mb > 20
    assert found.with_faces_images_per_s > 0
    total = 12 * 4 + 6  # three passes of ours, with people, with faces, and of torch; and the soak
    assert done[-1] == (total, total)
    assert done == sorted(done)


def test_a_system_without_proc_reports_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "FRESH", predict.FRESH.replace("/proc/self/status", "/nowhere/status"))
    images = [sample.image.read() for sample in open_data("synthetic:1").samples]
    seconds, peak_mb, has_torch = predict._fresh_process(None, None, images)
    assert (seconds > 0.05, peak_mb, has_torch) == (True, None, False)


def test_growth_of_memory_names_the_first_image_that_counts() -> None:
    """A soak of fewer than 4,000 images is measured from its middle."""
    assert _growth(0.25, 1000, "image") == "\nmemory grew by 0.2 MB between image 500 and image 1,000"
    assert _growth(0.25, 50000, "image") == "\nmemory grew by 0.2 MB between image 2,000 and image 50,000"
    assert _growth(None, 1000, "image") == ""
