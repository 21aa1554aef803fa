"""Images as users give them: paths, bytes, PIL images, arrays, folders, patterns; and a parallel map over them."""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import ImageError, ImageNotFoundError, MissingReaderError
from uniemox.io.borders import image_border, shorten
from uniemox.io.decoding.pool import Decode, DecoderPool, Decoders, decode_one
from uniemox.io.files import MAX_NAME, read_limited
from uniemox.io.images import (
    FORMATS,
    HEIF_ENDINGS,
    HEIF_NEEDS,
    MAX_BYTES,
    MinSides,
    check_size,
    decode_opened,
    is_image_name,
)
from uniemox.io.parallel import count_cores, parallel_map
from uniemox.io.path_lists import listed_paths
from uniemox.io.raw_preview import RAW_ENDINGS, RAW_NEEDS, TIFF_STARTS, is_raw
from uniemox.io.shortage import refuse_shortage
from uniemox.io.sized_image import SizedImage
from uniemox.io.walking import LeftOut, walk_folder
from uniemox.predict.data_urls import is_bare_base64, is_data_url, read_data_url
from uniemox.predict.film import FILMS, Frame
from uniemox.predict.patterns import expand_pattern

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[Any] | Frame
Item = TypeVar("Item")
FOREIGN = (
    *HEIF_ENDINGS,
    *RAW_ENDINGS,
    *(".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".jxr", ".wdp"),
    *(".psd", ".psb", ".xcf", ".exr", ".hdr", ".tga", ".pcx"),
)
"""Endings of image formats that can't be read; in a folder each such file becomes a failure."""
NO_PHOTOGRAPHS = (".ico", ".cur", ".icns", ".svg", ".svgz", ".eps", ".ai", ".wmf", ".emf", ".dds")
"""Endings of icons, drawings and textures; in a folder they are left out, with a note."""


def read_any(source: ImageLike, shrink: MinSides | None = None, *, decode_file: Decode = decode_one) -> SizedImage:
    """Return the image, upright and RGB.

    Args:
        source: Image in any form that `Predictor.predict` takes.
        shrink: Minimum sides of a reduced copy of a large JPEG, see `images.decode`; None: the full size.
        decode_file: Decoder of a file's bytes; that of a pool for untrusted files.

    Raises:
        ImageError: For any other type, and for a file that can't be decoded completely.
    """
    with image_border(name_of(source)):
        return _read_any(source, shrink, decode_file)


def _read_any(source: ImageLike, shrink: MinSides | None, decode_file: Decode) -> SizedImage:
    """Read an image; takes the arguments of `read_any`."""
    if isinstance(source, str) and is_data_url(source):
        return decode_file(read_data_url(source), "image", shrink=shrink)
    if isinstance(source, (str, os.PathLike)):
        return decode_file(_read_file(source), shorten(str(Path(source))), shrink=shrink)
    if isinstance(source, Frame):
        if source.image is None:
            raise ImageError(source.error)
        return SizedImage(source.image, source.size)
    source = content_of(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return decode_file(bytes(source), "image", shrink=shrink)
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    if not isinstance(source, Image.Image):
        raise ImageError(f"expected a path, bytes, an open file, a PIL image or an array, got {type(source).__name__}")
    check_size(*source.size, "image")
    if (data := _undecoded_file(source)) is not None:
        return decode_file(data, "image", shrink=None)
    return decode_opened(source, "image")


def _undecoded_file(image: Image.Image) -> bytes | None:
    """Return the file of an image that Pillow has opened but not decoded, because Pillow reads less of it than we do.

    None for other images: their pixels may have been changed. The position in the open file stays the same.
    """
    file = getattr(image, "fp", None)
    is_unchanged = bool(getattr(image, "tile", None)) and not getattr(image, "decoderconfig", None)
    if file is None or not is_unchanged or image.tell() != 0 or image.format not in (*FORMATS, "MPO"):
        return None
    try:
        position = file.tell()
        file.seek(0)
        data = file.read(MAX_BYTES + 1)
        file.seek(position)
    # The file is closed; the decoder reports that.
    except (OSError, ValueError):
        return None
    if isinstance(data, bytes) and len(data) <= MAX_BYTES:
        return data
    return None


def _read_file(source: str | os.PathLike[str]) -> bytes:
    """Return the bytes of an image file.

    Raises:
        ImageError: For a file that can't be read, a video, and a format that can't be decoded.
    """
    path = Path(source)
    ending = path.suffix.lower()
    name = shorten(str(path))
    if isinstance(source, str) and is_bare_base64(source):
        raise ImageError(
            f"{shorten(source[:60])}...: base64 without the beginning of a data URL; put data:image/jpeg;base64, in "
            "front of it, or give base64.b64decode(text)"
        )
    if ending in FILMS:
        raise ImageError(f"{name}: a video; uniemox predict --every 1s reads one frame per second")
    if ending in FOREIGN and not is_image_name(path):
        kind = path.suffix[1:].upper()
        if ending in HEIF_ENDINGS:
            raise MissingReaderError(f"{name}: {kind} {HEIF_NEEDS}")
        if ending in RAW_ENDINGS:
            raise MissingReaderError(f"{name}: {kind} {RAW_NEEDS}")
        raise ImageError(f"{name}: {kind} is not read; save it as JPEG or PNG")
    # "from None": a traceback would print the error's own copy of the name, which may be a whole photograph in text.
    try:
        data = read_limited(path, MAX_BYTES)
        if ending in RAW_ENDINGS and data.startswith(TIFF_STARTS) and not is_raw(data):
            # Pillow would read it as a TIFF, whose first image is a thumbnail.
            raise ImageError(f"{name}: a camera raw of an unknown kind; save it as JPEG or PNG")
        return data
    except IsADirectoryError:
        raise ImageError(f"{name}: a folder, not an image; give a readable folder alone, not in a list") from None
    except FileNotFoundError as error:
        if "://" in str(source):
            raise ImageError(
                f"{shorten(str(source))}: addresses are not fetched; save the image and give its path"
            ) from None
        raise ImageNotFoundError(f"{name}: can't be read ({error.strerror})") from None
    # ValueError: the name has a null character.
    except (OSError, ValueError) as error:
        refuse_shortage(error)
        reason = getattr(error, "strerror", None) or shorten(str(error))
        raise ImageError(f"{name}: can't be read ({reason})") from None


def content_of(source: ImageLike) -> ImageLike:
    """Read the rest of an open file once, as bytes; returns anything else unchanged.

    Raises:
        ImageError: For a file opened as text, or with too many bytes.
    """
    read = getattr(source, "read", None)
    if read is None:
        return source
    try:
        data = read(MAX_BYTES + 1)
    # ValueError: the file is closed, or is text that is not UTF-8.
    except (OSError, ValueError) as error:
        raise ImageError(f"the file can't be read ({error})") from error
    if not isinstance(data, bytes):
        raise ImageError("the file gives text; open it as bytes: open(path, 'rb')")
    return data


def path_of(image: ImageLike) -> str | None:
    """Return the path of an image; for a frame the video's path with the time; None for an image from memory.

    For a data URL it is None as well. Other text that is an image instead of a path is shortened.
    """
    if isinstance(image, Frame):
        return image.path
    if not isinstance(image, (str, os.PathLike)) or (isinstance(image, str) and is_data_url(image)):
        return None
    path = os.fspath(image)
    if len(path) > MAX_NAME or is_bare_base64(path):
        return shorten(path)
    return path


def name_of(image: ImageLike) -> str:
    """Return the name of an image in messages, at most 200 characters."""
    path = path_of(image)
    return "image" if path is None else shorten(path)


def _from_array(values: NDArray[Any]) -> Image.Image:
    if np.ma.is_masked(values):
        raise ImageError("the array has masked pixels, which have no colour; fill them, as with values.filled(0)")
    shape = values.shape
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))) or 0 in shape:
        raise ImageError(f"expected an array (H, W), (H, W, 3) or (H, W, 4), got {shape}")
    check_size(shape[1], shape[0], "image")
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise ImageError("the array holds values that are not finite; expected floats from 0 to 1")
        if values.min() < 0 or values.max() > 1:
            raise ImageError(
                f"the array's floats go from {values.min():.3g} to {values.max():.3g}; expected 0 to 1: divide by 255?"
            )
        values = (values.astype(np.float32) * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        raise ImageError(f"expected an array of uint8, or of floats from 0 to 1, got {values.dtype}")
    return Image.fromarray(np.ascontiguousarray(values))


def walk(folder: Path, skipped: LeftOut | None = None) -> Iterator[Path]:
    """Yield the images in a folder and its subfolders, also behind links, see `walk_folder`.

    A folder that can't be read is yielded itself, so that reading it fails.

    Args:
        folder: Folder to read.
        skipped: Gets the folders that were skipped, and images that are no photographs.
    """
    unlisted = set[Path]()

    def note_unlisted(path: Path, _error: OSError) -> Path:
        unlisted.add(path)
        return path

    for path in walk_folder(folder, note_unlisted, skipped):
        if path in unlisted or is_listed_name(path):
            yield path
        elif skipped is not None and path.suffix.lower() in NO_PHOTOGRAPHS:
            skipped.files.append(path)


def is_listed_name(path: str | os.PathLike[str]) -> bool:
    """Return True if a file in a folder is read, or reported as an image of a format that can't be read."""
    return is_image_name(Path(path)) or Path(path).suffix.lower() in FOREIGN


def list_images(names: Sequence[str], listed: Iterable[str] = (), skipped: LeftOut | None = None) -> Iterator[str]:
    """Yield the images that names on the command line refer to.

    Args:
        names: Files; folders, for all images below them; patterns such as photos/*.jpg if no file has that name (**
            also for subfolders); "-" for `listed`, one path per line. Other names are yielded unchanged, so that
            reading them fails.
        listed: Standard input, or its lines, see `listed_paths`.
        skipped: Gets the folders that were skipped.
    """
    skipped = LeftOut() if skipped is None else skipped
    for name in names:
        # os.path, because Path.is_dir and exists raise OSError for a name that is too long.
        if name == "-":
            yield from listed_paths(listed)
        elif is_data_url(name):
            yield name
        elif os.path.isdir(name):
            yield from map(str, walk(Path(name), skipped))
        elif os.path.exists(name) or not glob.has_magic(name) or not (paths := expand_pattern(name, skipped.system)):
            yield name
        else:
            for path in paths:
                if not os.path.isdir(path):
                    if is_listed_name(path):
                        yield path
                # "**" also matches the images in the folders, which must not be listed twice.
                elif "**" not in name:
                    yield from map(str, walk(Path(path), skipped))


def map_images(
    images: Iterable[ImageLike], work: Callable[[ImageLike, Decode], Item], ahead: int, decoders: Decoders | None
) -> Iterator[Item]:
    """Yield the results of `work`, in the order of the images.

    Args:
        images: Images, read lazily.
        work: Function called in parallel with an image and a function that decodes files.
        ahead: Number of images in progress before the next result is taken, see `parallel_map`.
        decoders: Processes that decode all files. None: start some for this call; a single image is decoded here.
    """
    remaining = iter(images)
    first_two = list(islice(remaining, 2))
    # For a single image, starting a process would take longer than decoding.
    if len(first_two) < 2:
        decode_file = decode_one if decoders is None else decoders.decode
        yield from (work(image, decode_file) for image in first_two)
        return
    cores = count_cores()
    # The pool starts its processes with the first file, so an unused one costs nothing.
    own_decoders = DecoderPool(cores)
    decode_file = (decoders or own_decoders).decode
    yield from parallel_map(
        chain(first_two, remaining),
        lambda image: work(image, decode_file),
        ahead=ahead,
        # One more thread than cores, because a thread may wait for its decoder.
        threads=cores + 1,
        on_stop=own_decoders.close,
    )
