"""Open a predictor by the name of its model."""

import os.path
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from uniemox.errors import CheckpointError, ConfigError, MissingPackageError, ModelWarning
from uniemox.io.hub import PREFIX, fetch
from uniemox.io.run_files import ONNX
from uniemox.io.weight_names import EMBEDDED, IN_PACKAGE, is_in_package
from uniemox.persons.detector import Detector, DetectorConfig, load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.confidence import flag_note
from uniemox.predict.faces import FaceReader
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor

EMBEDDED_NAME = "embedded"
FINDER = "finder.onnx"
FACE_FINDER = "faces.onnx"
EXPRESSIONS = "expressions.onnx"
# The file shifts its confidences so that 0.5 is the value chosen on held-out images.
FINDER_CONFIDENCE = 0.5
# The confidence with the best F1 of the embedded detector on images held out of its training.
FACE_CONFIG = DetectorConfig(confidence=0.45)
Faces = Literal["find", "whole"]
CLIP = "clip:"


def load(  # noqa: PLR0913 - one per part of a predictor
    path_or_name: str | Path | None = None,
    *,
    person_model: str | Path | None = None,
    finder: str | Path | None = EMBEDDED_NAME,
    faces: Faces | None = None,
    face_model: str | Path | None = None,
    face_finder: str | Path | None = None,
    threads: int | None = None,
    words: Sequence[str] | None = None,
    provider: str = "cpu",
) -> Predictor:
    """Open the predictor of a model.

    Args:
        path_or_name: A fine-tuning run, its model.onnx, hub:owner/repository/file.onnx, or clip:NAME@WEIGHTS, a
            zero-shot CLIP; None or embedded: the package's model; small: one of that model's networks, which loads
            faster and is slightly less accurate.
        person_model: Predicts what the detected people feel; named in the same way.
        finder: embedded, or a person detector as for `load_detector`; None: do not detect people.
        faces: Predict facial expressions. find: of all detected faces; whole: the image is one face; None: no faces.
        face_model: Expression model, such as a run on ferplus; None: the package's own.
        face_finder: Face detector as for `load_detector`, such as yunet_n.onnx; None: the package's own.
        threads: Threads per run of a network; None: one per core.
        words: Words that a clip: model chooses from; None: Mikels' eight labels.
        provider: Execution provider of onnxruntime, for the model and person_model; see
            `uniemox.io.onnx_sessions.PROVIDERS`.

    Raises:
        CheckpointError: For a model that can't be used.
        DetectorError: For a detector that can't be used.
        HubError: For a file that can't be fetched.
        MissingPackageError: For clip: without torch, timm or open_clip.
        ConfigError: For settings that contradict each other.

    Warns:
        ModelWarning: If the model has so few held-out images that it flags only blank images as unfamiliar.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}; leave it out for one a core")
    network = open_network(path_or_name, threads=threads, words=words, provider=provider)
    person_network = None
    if person_model is not None:
        person_network = open_network(person_model, threads=threads, provider=provider)
    if note := flag_note(network.info):
        warnings.warn(note, ModelWarning, stacklevel=2)
    reader = open_faces(faces, face_model, face_finder, threads)
    detector = None if finder is None else open_finder(finder, threads)
    return Predictor(network, detector, person_network, reader)


def open_faces(
    faces: Faces | None,
    face_model: str | Path | None = None,
    face_finder: str | Path | None = None,
    threads: int | None = None,
) -> FaceReader | None:
    """Open the reader of faces; see `load`.

    Raises:
        ConfigError: For settings that contradict each other.
    """
    if faces not in (None, *get_args(Faces)):
        raise ConfigError(f"faces must be find or whole, got {faces!r}; leave it out for no faces")
    if faces is None and (face_model is not None or face_finder is not None):
        raise ConfigError("face_model and face_finder need faces; give faces as find or whole")
    if faces == "whole" and face_finder is not None:
        raise ConfigError("with faces as whole no face is detected; leave face_finder out")
    if faces is None:
        return None
    network = open_network(embedded_file(EXPRESSIONS) if face_model is None else face_model, threads=threads)
    if face_finder is not None:
        return FaceReader(network, load_detector(face_finder, threads=threads))
    return FaceReader(network, None if faces == "whole" else open_embedded_faces(threads))


def open_embedded_faces(threads: int | None = None) -> MirrorDetector:
    """Open the package's face detector."""
    return MirrorDetector(load_detector(embedded_file(FACE_FINDER), FACE_CONFIG, threads=threads))


def open_network(
    path_or_name: str | Path | None,
    *,
    threads: int | None = None,
    words: Sequence[str] | None = None,
    provider: str = "cpu",
) -> Network:
    """Open the network of a model; see `load`."""
    name = None if path_or_name is None else str(path_or_name)
    if name is not None and name.startswith(CLIP):
        missing = [package for package in ("torch", "timm", "open_clip") if find_spec(package) is None]
        if missing:
            raise MissingPackageError(f"{name} needs {', '.join(missing)}; run: pip install 'uniemox[train]'")
        if provider != "cpu":
            raise ConfigError(f"{name} runs in torch, without onnxruntime; leave out --provider {provider}")
        from uniemox.teacher.zero_shot import open_clip  # noqa: PLC0415 - torch

        return open_clip(name, words, threads=threads)
    if words is not None:
        raise ConfigError(f"only a CLIP takes words; give clip:NAME@WEIGHTS as the model, not {name or EMBEDDED_NAME}")
    if name is None or is_in_package(name):
        name = name or EMBEDDED_NAME
        return Network.open(embedded_file(IN_PACKAGE[name]), name=name, threads=threads, provider=provider)
    path = fetch(name) if name.startswith(PREFIX) else Path(name)
    # os.path, because Path.is_dir raises OSError for a name that is too long.
    if os.path.isdir(path):
        if not (path / ONNX).is_file():
            raise CheckpointError(f"{path} has no {ONNX}; give a finished run of uniemox finetune")
        path = path / ONNX
    return Network.open(path, threads=threads, provider=provider)


def open_finder(
    finder: str | Path, threads: int | None = None, *, config: DetectorConfig | None = None, provider: str = "cpu"
) -> Detector:
    """Open a person detector by name; see `load`.

    The package's own detector also runs on the mirror image; people must be detected in both.

    Args:
        finder: embedded, or a person detector as for `load_detector`.
        threads: Threads per run; None: one per core.
        config: Settings of the detector, see `load_detector`.
        provider: Execution provider of onnxruntime, see `load_detector`.
    """
    config = config or DetectorConfig()
    if str(finder) != EMBEDDED_NAME:
        return load_detector(finder, config, threads=threads, provider=provider)
    confidence = FINDER_CONFIDENCE if config.confidence is None else config.confidence
    # A detection that is dropped in one of the two images could not be confirmed by the other.
    unmirrored_config = replace(config, confidence=confidence / 2, max_detections=max(100, 2 * config.max_detections))
    detector = load_detector(finder_file(finder), unmirrored_config, threads=threads, provider=provider)
    return MirrorDetector(detector, confidence, config.max_detections)


def finder_file(finder: str | Path) -> str | Path:
    """Return the file of `embedded`; other names unchanged."""
    if str(finder) == EMBEDDED_NAME:
        return embedded_file(FINDER)
    return finder


def embedded_file(name: str) -> Path:
    """Return the path of a file in the package.

    Raises:
        CheckpointError: If this installation lacks it.
    """
    path = EMBEDDED / name
    if not path.is_file():
        replacements = {
            FINDER: "a person detector, or None (--no-persons)",
            FACE_FINDER: "a face finder (--face-finder)",
        }
        replacement = replacements.get(name, "a model")
        raise CheckpointError(
            f"this installation of uniemox comes without {name}; install it again, or give {replacement}"
        )
    return path
