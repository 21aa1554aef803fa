"""Names of weights, for --init, --encoder.start and --teacher.source."""

import os
from dataclasses import dataclass
from pathlib import Path

from uniemox.errors import ConfigError
from uniemox.io.run_files import CONFIG

SCRATCH = "scratch:"
CLIP = "clip:"
ONNX_ENDING = ".onnx"
WEIGHTS_ENDING = ".safetensors"
EMBEDDED = Path(__file__).parents[1] / "predict" / "embedded"
# Models that come with the package.
IN_PACKAGE = {"embedded": "scene.onnx", "small": "small.onnx"}


def is_in_package(model: str | Path) -> bool:
    """Return True if a name or path is the name of a model in the package, such as embedded.

    Raises:
        ConfigError: If the working directory has a model of this name, too; paths have no ./ that tells them apart.
    """
    if str(model) not in IN_PACKAGE:
        return False
    path = Path(model)
    is_file = path.is_file()
    if is_file or _has_model(path):
        here, short = ("a file", "file") if is_file else ("a folder with a model", "folder")
        raise ConfigError(
            f"{model} is a model in the package, and {here} here; for the {short}, give its path from the root: "
            f"{path.absolute()}"
        )
    return True


def _has_model(folder: Path) -> bool:
    """Return True if a folder has a run, or a file of weights."""
    try:
        names = os.listdir(folder)
    except OSError:
        # There is no such folder, or nobody could open a model in it.
        return False
    return any(name == CONFIG or name.endswith((ONNX_ENDING, WEIGHTS_ENDING)) for name in names)


def file_in_package(model: Path) -> Path:
    """Return the file of the package's model of this name, such as embedded; other paths unchanged.

    Raises:
        ConfigError: See `is_in_package`.
    """
    if is_in_package(model):
        return EMBEDDED / IN_PACKAGE[str(model)]
    return model


def refuse_name_in_package(out: Path) -> None:
    """Raise ConfigError for the name of a model in the package: commands would not open what is written there."""
    if str(out) in IN_PACKAGE:
        raise ConfigError(f"--out {out} is the name of a model in the package; choose another name, such as runs/{out}")


@dataclass(frozen=True, slots=True)
class Init:
    """Source of an encoder."""

    networks: tuple[str, ...]
    """Runs, files, timm:NAME, timm:NAME@FILE, embedded, small; several are concatenated; empty: no initial weights."""
    from_scratch: bool
    """True to build the networks with random weights."""

    @classmethod
    def parse(cls, text: str) -> "Init":
        """Parse [scratch:]NETWORK[,NETWORK ...].

        >>> Init.parse("scratch:runs/pre")
        Init(networks=('runs/pre',), from_scratch=True)
        """
        names = text.removeprefix(SCRATCH)
        return cls(tuple(names.split(",")) if names else (), names != text)


def weight_paths(name: str) -> list[Path]:
    """Return the files and folders in a name of weights; none for fetched ones.

    >>> [str(path) for path in weight_paths("scratch:mae.pth,timm:vit_tiny_patch16_224@a.safetensors,timm:resnet50")]
    ['mae.pth', 'a.safetensors']
    """
    paths = []
    for word in Init.parse(name).networks:
        kind, _, source = word.partition(":")
        if word in IN_PACKAGE:
            paths.append(EMBEDDED / IN_PACKAGE[word])
        elif kind in ("fitted", "stored", "onnx"):
            paths.append(Path(source))
        elif kind in ("clip", "timm") and source.startswith("local-dir:"):
            paths.append(Path(source.removeprefix("local-dir:")))
        elif kind in ("clip", "timm"):
            # A name without a file is fetched.
            if "@" in source:
                paths.append(Path(source.partition("@")[2]))
        else:
            paths.append(Path(word))
    return paths
