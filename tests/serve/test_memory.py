"""Large images: memory while they are decoded, and the number that is decoded at a time."""

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.images import save
from tests.serve.serving import image, predictor_of
from uniemox.io.images import decode
from uniemox.predict.predictor import Predictor
from uniemox_serve import models
from uniemox_serve.models import LARGE_AT_ONCE, Models, PredictAsk

SIDE = 2400
"""Side of the large image, px."""
PEAK = """
import sys
from uniemox.io.images import decode
def peak():  # of this process alone, kB; getrusage would count its parent, too
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
data = open(sys.argv[1], "rb").read()
decode(open(sys.argv[2], "rb").read())
before = peak()
decode(data)
print(peak() - before)
"""


def draw(mode: str, side: int) -> Image.Image:
    """Draw colours and alphas that change everywhere, and compress well."""
    ramp = np.add.outer(np.arange(side), np.arange(side))
    if mode == "I;16":
        return Image.fromarray((64 * ramp % 65536).astype(np.uint16))
    bands = len(mode)
    return Image.fromarray(np.stack([(ramp // (1 + i)) % 256 for i in range(bands)], axis=2).astype(np.uint8))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("mode", "fmt", "max_bytes"),
    [("RGB", "JPEG", 4.5), ("RGB", "PNG", 4.5), ("RGBA", "PNG", 9), ("I;16", "PNG", 12), ("RGBA", "WEBP", 17)],
)
def test_memory_per_pixel_has_a_limit(tmp_path: Path, mode: str, fmt: str, max_bytes: float) -> None:
    """docs/serve.md has the maximum, 17."""
    for name, side in (("large", SIDE), ("small", 64)):
        (tmp_path / name).write_bytes(save(draw(mode, side), fmt))
    command = [sys.executable, "-c", PEAK, tmp_path / "large", tmp_path / "small"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) * 1024 / SIDE**2 < max_bytes


def test_transparent_images_are_composed_on_white() -> None:
    for mode in ("RGBA", "LA"):
        pixels = np.random.default_rng(0).integers(0, 256, (150, 70, len(mode)), dtype=np.uint8)
        image = Image.fromarray(pixels)
        rgba = image.convert("RGBA")
        expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        assert np.array_equal(np.asarray(decode(save(image, "PNG"))[0]), np.asarray(expected))


class CountingPredictor(Predictor):
    """Records the maximum number of decoded images at a time."""

    def detect_persons(self, *args: Any) -> None:
        with self.lock:
            self.inside += 1
            self.max_inside = max(self.max_inside, self.inside)
        time.sleep(0.05)
        with self.lock:
            self.inside -= 1


def test_large_images_are_decoded_two_at_a_time_and_answers_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "LARGE_PIXELS", 60 * 44)
    monkeypatch.setattr("uniemox.io.parallel.usable_cores", lambda: 8)
    plain = predictor_of(tmp_path, finder=False)
    counted = CountingPredictor(plain.network)
    counted.lock = threading.Lock()
    counted.inside = 0
    counted.max_inside = 0
    served = Models([counted], max_megapixels=1, decode_s=30)
    ask = PredictAsk(served.names[0], None, None)
    large = [image(i, 80, 60) for i in range(5)]
    small = [image(10 + i) for i in range(3)]
    assert len(list(served.work(ask, large))) == 5
    assert counted.max_inside == LARGE_AT_ONCE
    mixed = [large[0], b"nothing", small[0], large[1], small[1], large[2], small[2]]
    answers = dict(served.work(ask, mixed))
    # Large ones come last.
    assert list(answers) == [1, 2, 4, 6, 0, 3, 5]
    for index, data in enumerate(mixed):
        answer = answers[index]
        if data == b"nothing":
            assert "not an image" in answer.error
        else:
            np.testing.assert_allclose(list(answer.scene.values()), list(plain.predict(data).scene.values()), atol=2e-6)
    served.close()
