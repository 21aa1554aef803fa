"""Opens a teacher by its name."""

from collections.abc import Callable, Mapping

import torch

from uniemox.checkpoints.timm_networks import load_timm
from uniemox.errors import CheckpointError, TeacherError
from uniemox.io.weight_archives import ARCHIVE_ERRORS
from uniemox.teacher.features import StoredTeacher
from uniemox.teacher.fitted import FittedTeacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.sources import OPENAI, ClipTeacher, OnnxImageTower, TimmImageTower, clip_width, join_networks


def open_teacher(source: str, device: str | torch.device = "cpu") -> Teacher:
    """Open a frozen teacher by its name, KIND:NAME.

    Args:
        source: clip:NAME@WEIGHTS with open_clip's name and published weights or a file (without @, OpenAI's weights),
            clip:local-dir:FOLDER, fitted:FOLDER of `uniemox teacher fit`, stored:FILE of `save_features`. Without a
            text encoder: timm:NAME with published weights, timm:NAME@FILE, timm:local-dir:FOLDER, onnx:FILE.
        device: Where the teacher runs; give the student's. It has no effect on ONNX files and stored features.

    Raises:
        TeacherError: For an unknown kind, or if the teacher can't be loaded.
    """
    kind, _, name = source.partition(":")
    if kind not in KINDS or not name:
        raise TeacherError(
            f"{source!r} is not a teacher; write clip:NAME@WEIGHTS, clip:local-dir:FOLDER, fitted:FOLDER, "
            "stored:FILE.npz, timm:NAME, timm:NAME@FILE or onnx:FILE"
        )
    return KINDS[kind](name, device)


def teacher_width(source: str) -> int:
    """Return the number of a teacher's feature channels, without fetching published weights.

    Args:
        source: Name of the teacher, see `open_teacher`.

    Raises:
        TeacherError: As `open_teacher`; published weights are only looked up by their name.
    """
    kind, _, name = source.partition(":")
    if kind == "clip" and not name.startswith("local-dir:"):
        architecture, _, weights = name.partition("@")
        return clip_width(architecture, weights or OPENAI)
    with torch.device("meta"):
        return open_teacher(source, "meta").width


def open_timm_tower(source: str, device: str | torch.device = "cpu") -> TimmImageTower:
    """Open the frozen image tower timm:NAME or timm:NAME@FILE, with options as for --init.

    Several, separated by commas, become one tower with concatenated features.

    Args:
        source: Names of towers.
        device: Where the tower runs.

    Raises:
        TeacherError: For another kind, or if the tower can't be loaded.
    """
    sources = source.split(",")
    if not all(name.startswith("timm:") and name != "timm:" for name in sources):
        raise TeacherError(f"expected an image tower as timm:NAME or timm:NAME@FILE, got {source!r}")
    try:
        return TimmImageTower(join_networks([load_timm(name, None) for name in sources]).to(device))
    except (CheckpointError, *ARCHIVE_ERRORS) as error:
        raise TeacherError(f"the image tower {source!r} can't be loaded: {error}") from error


def timm_name(source: str) -> str:
    """Return the names inside a `timm:` source, with their options but without files; see `open_timm_tower`.

    >>> timm_name("timm:resnet18@resnet18.safetensors")
    'resnet18'
    """
    return ",".join(name.removeprefix("timm:").partition("@")[0] for name in source.split(","))


def clip_parts(name: str) -> tuple[str, str]:
    """Return architecture and weights of a CLIP model.

    Args:
        name: NAME@WEIGHTS, NAME, or local-dir:FOLDER.

    >>> clip_parts("ViT-B-16@clip.pt"), clip_parts("local-dir:a@b")
    (('ViT-B-16', 'clip.pt'), ('local-dir:a@b', 'openai'))
    """
    # The path of a folder may contain @.
    if name.startswith("local-dir:"):
        return name, OPENAI
    architecture, _, weights = name.partition("@")
    return architecture, weights or OPENAI


def _open_clip(name: str, device: str | torch.device) -> Teacher:
    return ClipTeacher.load(*clip_parts(name), device)


KINDS: Mapping[str, Callable[[str, str | torch.device], Teacher]] = {
    "clip": _open_clip,
    "fitted": FittedTeacher.load,
    "stored": lambda file, _: StoredTeacher(file),
    "timm": lambda name, device: open_timm_tower(f"timm:{name}", device),
    "onnx": lambda file, _: OnnxImageTower(file),
}
