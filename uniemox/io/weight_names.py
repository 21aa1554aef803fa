"""Names of weights, for --init, --encoder.start and --teacher.source."""

from dataclasses import dataclass
from pathlib import Path

SCRATCH = "scratch:"
EMBEDDED = Path(__file__).parents[1] / "predict" / "embedded"
IN_PACKAGE = {"embedded": "scene.onnx", "small": "small.onnx"}  # models that come with the package


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
        kind, _, rest = word.partition(":")
        if word in IN_PACKAGE:
            paths.append(EMBEDDED / IN_PACKAGE[word])
        elif kind in ("fitted", "stored", "onnx"):
            paths.append(Path(rest))
        elif kind in ("clip", "timm") and rest.startswith("local-dir:"):
            paths.append(Path(rest.removeprefix("local-dir:")))
        elif kind in ("clip", "timm"):
            paths += [Path(rest.partition("@")[2])] if "@" in rest else []
        else:
            paths.append(Path(word))
    return paths
