"""uniemox: what pictures of whole scenes make people feel; with a model trained for it, what people in them feel.

After UniEmoX (arXiv 2409.18877). Importing the package imports neither torch nor any other large library.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.predict.opening import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`uniemox.load`, imported when it is first asked for."""
    if name == "load":
        from uniemox.predict.opening import load  # noqa: PLC0415 - onnxruntime

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
