"""Person detection: one interface for ONNX files of several layouts and Darknet's own files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image

from uniemox.errors import ConfigError, DetectorError
from uniemox.persons.box import Detection, DetectorConfig

__all__ = ["Detector", "DetectorConfig", "SquashingDetector", "load_detector"]


class Detector(Protocol):
    """Detector of people in images."""

    name: str
    """Name of the file, such as yolox_nano.onnx."""
    fingerprint: str
    """16 hexadecimal digits that change with anything that changes boxes: files, settings, decoding."""

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        """Detect people in upright RGB images of any size; boxes in px of each, clipped to it, most confident first."""


@runtime_checkable
class SquashingDetector(Detector, Protocol):
    """Detector whose network reads images squashed to one size, so that they may be squashed before."""

    def squash(self, image: Image.Image) -> Image.Image:
        """Return an image in the size in which the network reads it; unchanged if the network does not squash it."""


def load_detector(
    source: str | Path, config: DetectorConfig | None = None, *, threads: int | None = None, provider: str = "cpu"
) -> Detector:
    """Open the detector in an .onnx file or in Darknet's pair of files.

    Args:
        source: Path of the .onnx; path of the .cfg, with the .weights of the same stem next to it; "a.cfg+b.weights";
            or a name "hub:...", which `uniemox.io.hub` resolves to a path.
        threads: Threads per run; None: one per core.
        provider: Execution provider of onnxruntime, see `uniemox.io.onnx_sessions.PROVIDERS`.

    Raises:
        DetectorError: If there is no such file or its layout is unknown.
        ConfigError: If the provider is not available.
    """
    config = config or DetectorConfig()
    from uniemox.persons.onnx_file import OnnxDetector  # noqa: PLC0415 (starting onnxruntime takes a while)

    if str(source).startswith("hub:"):
        from uniemox.io.hub import fetch  # noqa: PLC0415 (only names of the hub need it)

        source = fetch(str(source))
    cfg, plus, weights = str(source).rpartition(".cfg+")
    path = Path(f"{cfg}.cfg") if plus else Path(source)
    if path.suffix.lower() == ".onnx":
        return OnnxDetector(_existing(path), config, threads=threads, provider=provider)
    if path.suffix.lower() == ".cfg":
        from uniemox.persons.darknet import DarknetDetector  # noqa: PLC0415 (needs an extra)

        if provider != "cpu":
            raise ConfigError(f"{path}: OpenCV runs it, on the CPU; for {provider} give YOLOv3 as an .onnx file")
        weights_path = _existing(Path(weights) if plus else path.with_suffix(".weights"))
        return DarknetDetector(_existing(path), weights_path, config, threads=threads)
    raise DetectorError(
        f"{source} is not a person detector: expected an .onnx file, a Darknet .cfg with its .weights next to it, "
        "or a.cfg+b.weights"
    )


def _existing(path: Path) -> Path:
    """Return the path.

    Raises:
        DetectorError: If it is not a file.
    """
    if not path.is_file():
        raise DetectorError(f"{path}: no such file; a person detector is an .onnx file, or a .cfg with its .weights")
    return path
