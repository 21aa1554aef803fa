"""The border around the work on one image: whatever fails there costs this image, not the job.

All readers of image files cross it. A job of a million images must not end because a library fails, in a way that
nobody foresaw, on one of them.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from uniemox.errors import ImageError, UnexpectedImageError, UniemoxError
from uniemox.io.shortage import refuse_shortage

MAX_SHOWN = 200
"""Maximum number of characters of an input, such as a path, that a message repeats."""
# The end of a path has the file's name, so this number of characters come from the end.
_END_SHOWN = 60

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
logger = logging.getLogger("uniemox.images")


def shorten(text: str) -> str:
    """Return at most 200 characters of an input for a message: its start and its end.

    >>> shorten("photos/a.jpg")
    'photos/a.jpg'
    >>> shorten("x" * 1000 + "/a.jpg")[-10:]
    'xxxx/a.jpg'
    """
    if len(text) <= MAX_SHOWN:
        return text
    return f"{text[: MAX_SHOWN - _END_SHOWN - 3]}...{text[-_END_SHOWN:]}"


@contextmanager
def image_border(name: str) -> Iterator[None]:
    """Convert any error inside the context, except ours, to an ImageError for this image.

    Errors of uniemox pass unchanged.

    Args:
        name: The image's name, for the message.

    Raises:
        UnexpectedImageError: If any other error occurs; it has the error's type and text and the request to report it.
        ImageError: If the memory is too small.
        ShortageError: If the machine allows no more processes, threads or open files.
    """
    try:
        yield
    except UniemoxError:
        raise
    except MemoryError as error:
        raise ImageError(
            f"{shorten(name)}: reading it takes more memory than there is; scale it down, or free memory"
        ) from error
    except Exception as error:
        refuse_shortage(error)
        # Servers log this level; commands show the one line of the message only.
        logger.info("an unexpected error while reading an image", exc_info=True)
        raise UnexpectedImageError(f"{shorten(name)}: {unexpected(error)}") from error


def unexpected(error: Exception) -> str:
    """Describe an error that nobody foresaw in one line: its type, up to 200 characters of its text, what to do."""
    try:
        text = shorten(" ".join(str(error).split()))
    except Exception:  # noqa: BLE001 - an error whose text can't be made
        text = ""
    description = type(error).__name__
    if text:
        description += f": {text}"
    return (
        f"can't be read ({description}). uniemox does not expect this error: please report this line, with the file "
        "if you may share it; meanwhile, save the image again, or remove it"
    )


def crosses_border(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Let a function that reads an image work inside `image_border`; its parameter `name` names the image."""
    signature = inspect.signature(function)
    position = list(signature.parameters).index("name")
    default = signature.parameters["name"].default

    @wraps(function)
    def inside(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        name = kwargs.get("name", args[position] if len(args) > position else default)
        with image_border(str(name)):
            return function(*args, **kwargs)

    return inside
