"""Open a predictor by the name of its model."""

import os.path
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from uniemox.errors import CheckpointError, ConfigError, MissingPackageError
from uniemox.io.files import ONNX
from uniemox.io.hub import PREFIX, fetch
from uniemox.io.weight_names import EMBEDDED, IN_PACKAGE
from uniemox.persons.detector import Detector, DetectorConfig, load_detector
from uniemox.predict.faces import FaceReader, MirrorDetector
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor

EMBEDDED_NAME = "embedded"
FINDER, FACE_FINDER, EXPRESSIONS = "finder.onnx", "faces.onnx", "expressions.onnx"
FACE_CONFIG = DetectorConfig(confidence=0.35)  # of the embedded finder: chosen on images held out from its training
Faces = Literal["find", "whole"]
CLIP = "clip:"


def load(
    path_or_name: str | Path | None = None,
    *,
    person_model: str | Path | None = None,
    finder: str | Path | None = EMBEDDED_NAME,
    faces: Faces | None = None,
    face_model: str | Path | None = None,
    face_finder: str | Path | None = None,
    threads: int | None = None,
    words: Sequence[str] | None = None,
) -> Predictor:
    """Open the predictor of a model.

    path_or_name: a fine-tuning run, its model.onnx, hub:owner/repository/file.onnx, or clip:NAME@WEIGHTS, a CLIP that
    chooses among words; None or embedded: the model that comes with the package; small: one of its networks, which
    starts sooner and is slightly less accurate.
    person_model: predicts what the detected people feel; named likewise.  finder: embedded, or a person detector as
    `load_detector` takes it; None: people are not detected.
    faces: predict what faces show to others: find, for all detected faces; whole, the image is a face already; None: no
    faces.  face_model: predicts it, such as a run on ferplus; face_finder: a face detector as `load_detector` takes
    it, such as yunet_n.onnx; None: those that come with the package.
    threads: for one run of a network; None: one a core.
    words: for clip:, the words to choose from; None: Mikels' eight labels.
    Raises CheckpointError, DetectorError, HubError for files that can't be used, ConfigError for settings that
    contradict each other.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}; leave it out for one a core")
    network = open_network(path_or_name, threads=threads, words=words)
    person_network = None if person_model is None else open_network(person_model, threads=threads)
    reader = open_faces(faces, face_model, face_finder, threads)
    return Predictor(network, open_finder(finder, threads), person_network, reader)


def open_faces(
    faces: Faces | None,
    face_model: str | Path | None = None,
    face_finder: str | Path | None = None,
    threads: int | None = None,
) -> FaceReader | None:
    """Open the reader of faces; see `load`. Raises ConfigError for settings that contradict each other."""
    if faces not in (None, *get_args(Faces)):
        raise ConfigError(f"faces must be find or whole, got {faces!r}; leave it out for no faces")
    if faces is None and (face_model is not None or face_finder is not None):
        raise ConfigError("face_model and face_finder go with faces; give faces as find or whole")
    if faces == "whole" and face_finder is not None:
        raise ConfigError("with faces as whole no face is detected; leave face_finder out")
    if faces is None:
        return None
    network = open_network(embedded_file(EXPRESSIONS) if face_model is None else face_model, threads=threads)
    if face_finder is not None:
        return FaceReader(network, load_detector(face_finder, threads=threads))
    return FaceReader(network, None if faces == "whole" else open_embedded_faces(threads))


def open_embedded_faces(threads: int | None = None) -> MirrorDetector:
    """Open the face detector that comes with the package."""
    return MirrorDetector(load_detector(embedded_file(FACE_FINDER), FACE_CONFIG, threads=threads))


def open_network(
    path_or_name: str | Path | None, *, threads: int | None = None, words: Sequence[str] | None = None
) -> Network:
    """Open the network of a model; see `load`."""
    name = None if path_or_name is None else str(path_or_name)
    if name is not None and name.startswith(CLIP):
        missing = [package for package in ("torch", "timm", "open_clip") if find_spec(package) is None]
        if missing:
            raise MissingPackageError(f"{name} needs {', '.join(missing)}; run: pip install 'uniemox[train]'")
        from uniemox.predict.clip import open_clip  # noqa: PLC0415 - torch

        return open_clip(name, words, threads=threads)
    if words is not None:
        raise ConfigError(f"words are chosen by a CLIP alone; give clip:NAME@WEIGHTS as the model, not {name}")
    if name is None or name in IN_PACKAGE:
        name = name or EMBEDDED_NAME
        return Network.open(embedded_file(IN_PACKAGE[name]), name=name, threads=threads)
    path = fetch(name) if name.startswith(PREFIX) else Path(name)
    if os.path.isdir(path):  # Path.is_dir raises OSError for a name that is too long
        if not (path / ONNX).is_file():
            raise CheckpointError(f"{path} holds no {ONNX}; give a finished run of uniemox finetune")
        path = path / ONNX
    return Network.open(path, threads=threads)


def open_finder(finder: str | Path | None, threads: int | None = None) -> Detector | None:
    """Open the person detector of a name; see `load`."""
    return None if finder is None else load_detector(finder_file(finder), threads=threads)


def finder_file(finder: str | Path) -> str | Path:
    """Return the file that `embedded` means; other names unchanged."""
    return embedded_file(FINDER) if str(finder) == EMBEDDED_NAME else finder


def embedded_file(name: str) -> Path:
    """Return the path of a file that comes with the package. Raises CheckpointError if this installation lacks it."""
    path = EMBEDDED / name
    if not path.is_file():
        others = {FINDER: "a person finder, or None (--no-persons)", FACE_FINDER: "a face finder (--face-finder)"}
        what = others.get(name, "a model")
        raise CheckpointError(f"this installation of uniemox comes without {name}; install it again, or give {what}")
    return path
