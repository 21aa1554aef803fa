"""Camera raw files are decoded in a separate process, or refused with a remedy."""

from pathlib import Path

import pytest

from tests.images import draw
from tests.raw_files import dng, jpeg
from tests.serve.serving import image, predictor_of, running
from uniemox.io import raw_preview
from uniemox_serve import models
from uniemox_serve.config import ServeConfig

RAW = dng(jpeg(draw(900, 600)), orientation=6)


def test_a_raw_file_is_answered_by_its_preview_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data: bytes, name: str) -> object:
        assert not raw_preview.is_raw(data), "LibRaw may not run in the server's process"
        return open_image(data, name)

    open_image = models.open_image
    monkeypatch.setattr(models, "open_image", refuse)
    with running([predictor_of(tmp_path)]) as server:
        first, raw, last = server.post("/predict", image(), RAW, image(2)).json
        assert "scene" in first
        assert "scene" in last
        if raw_preview.HAS_RAWPY:
            assert (raw["width_px"], raw["height_px"]) == (600, 900)
        else:
            assert "pip install 'uniemox[raw]'" in raw["error"]


def test_a_raw_file_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("rawpy", reason="needs rawpy: pip install 'uniemox[raw]'")
    with running([predictor_of(tmp_path)], ServeConfig(max_megapixels=1)) as server:
        large = dng(jpeg(draw(1500, 1000)))
        assert server.post("/predict", large).code == (422, "unreadable_picture")
