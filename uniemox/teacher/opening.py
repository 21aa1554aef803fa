"""Opens a teacher by its name."""

from collections.abc import Callable, Mapping

import torch

from uniemox.checkpoints.timm_networks import load_timm
from uniemox.errors import CheckpointError, TeacherError
from uniemox.io.weight_archives import UNREADABLE
from uniemox.teacher.features import StoredTeacher
from uniemox.teacher.fitted import FittedTeacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.sources import ClipTeacher, OnnxImageTower, TimmImageTower, join_networks


def open_teacher(source: str, device: str | torch.device = "cpu") -> Teacher:
    """Open the frozen teacher of a name KIND:WHAT.

    Args:
        source: clip:NAME@WEIGHTS with open_clip's name and published weights or a file (without @, OpenAI's weights),
            clip:local-dir:FOLDER, fitted:FOLDER of `uniemox teacher fit`, stored:FILE of `save_features`. Without a
            text encoder: timm:NAME with published weights, timm:NAME@FILE, timm:local-dir:FOLDER, onnx:FILE.
        device: Where the teacher runs; give the student's. It has no effect on ONNX files and stored features.

    Raises:
        TeacherError: For an unknown kind, or if the teacher can't be loaded.
    """
    kind, _, what = source.partition(":")
    if kind not in KINDS or not what:
        raise TeacherError(
            f"{source!r} is not a teacher; write clip:NAME@WEIGHTS, clip:local-dir:FOLDER, fitted:FOLDER, "
            "stored:FILE.npz, timm:NAME, timm:NAME@FILE or onnx:FILE"
        )
    return KINDS[kind](what, device)


def open_timm_tower(source: str, device: str | torch.device = "cpu") -> TimmImageTower:
    """Open the frozen image tower timm:NAME or timm:NAME@FILE, with options as for --init.

    Several, separated by commas, become one tower with concatenated features.

    Raises:
        TeacherError: For another kind, or if the tower can't be loaded.
    """
    sources = source.split(",")
    if not all(one.startswith("timm:") and one != "timm:" for one in sources):
        raise TeacherError(f"expected an image tower as timm:NAME or timm:NAME@FILE, got {source!r}")
    try:
        return TimmImageTower(join_networks([load_timm(one, None) for one in sources]).to(device))
    except (CheckpointError, *UNREADABLE) as error:
        raise TeacherError(f"the image tower {source!r} can't be loaded: {error}") from error


def timm_name(source: str) -> str:
    """Return the names inside a `timm:` source, with their options but without files; see `open_timm_tower`.

    >>> timm_name("timm:resnet18@resnet18.safetensors")
    'resnet18'
    """
    return ",".join(one.removeprefix("timm:").partition("@")[0] for one in source.split(","))


def _open_clip(what: str, device: str | torch.device) -> Teacher:
    if what.startswith("local-dir:"):
        return ClipTeacher.load(what, device=device)
    name, at, weights = what.partition("@")
    if at:
        return ClipTeacher.load(name, weights, device)
    return ClipTeacher.load(name, device=device)


KINDS: Mapping[str, Callable[[str, str | torch.device], Teacher]] = {
    "clip": _open_clip,
    "fitted": FittedTeacher.load,
    "stored": lambda file, _: StoredTeacher(file),
    "timm": lambda what, device: open_timm_tower(f"timm:{what}", device),
    "onnx": lambda file, _: OnnxImageTower(file),
}
