"""Image files of every format and mode that Pillow writes, drawn: what the tests of decoding and the fuzz run use."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

HUGE = b"\xff" * 8
"""A place in a file, or a size, that no memory has."""
FILE_STARTS = {
    "JPEG": b"\xff\xd8\xff\xe1",
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "GIF": b"GIF89a",
    "WebP": b"RIFF\xff\0\0\0WEBPVP8X",
    "BMP": b"BM",
    "DIB": b"\x28\0\0\0",
    "TIFF": b"II*\0\x08\0\0\0",
    "TIFF, big-endian": b"MM\0*\0\0\0\x08",
    "BigTIFF": b"II+\0\x08\0\0\0",
    "BigTIFF, big-endian": b"MM\0+\0\x08\0\0",
    "AVIF": b"\0\0\0\x1cftypavif",
    "HEIC": b"\0\0\0\x18ftypheic",
    "CR3": b"\0\0\0\x18ftypcrx ",
    **{f"P{kind}": f"P{kind}\n".encode() for kind in "1234567fFy"},
    "CR2": b"II*\0\x10\0\0\0CR\x02\0",
    "RW2": b"IIU\0\x08\0\0\0",
    "ORF": b"IIRO\x08\0\0\0",
    "RAF": b"FUJIFILMCCD-RAW ",
    "PSD": b"8BPS\0\x01",
    "JPEG XL": b"\xff\x0a",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
}
"""The first bytes of a file by format, also of formats that are not read."""


def draw(width: int = 60, height: int = 44, seed: int = 0) -> Image.Image:
    """An RGB image in which no two corners look alike."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 // width, y * 255 // height, (x + y + 40 * seed) * 255 // (width + height + 40 * seed)]
    image = Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    pen.ellipse((width // 8, height // 8, width // 3, height // 2), fill=(250, 40, 60))
    pen.rectangle((width // 2, height // 2, width - 4, height - 6), fill=(20, 120, 240))
    return image


def save(image: Image.Image, fmt: str, **options: object) -> bytes:
    """An image as the bytes of a file."""
    buffer = io.BytesIO()
    image.copy().save(buffer, fmt, **options)
    return buffer.getvalue()


def animate(fmt: str, frames: Sequence[Image.Image], **options: object) -> bytes:
    """Several images in one file."""
    return save(frames[0], fmt, save_all=True, append_images=[frame.copy() for frame in frames[1:]], **options)


def with_orientation(image: Image.Image, fmt: str, orientation: int) -> bytes:
    """A file whose EXIF says how it lies."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    if fmt == "WEBP":
        lossless = {"lossless": True}
    else:
        lossless = {"quality": 95} if fmt == "JPEG" else {}
    return save(image, fmt, exif=exif, **lossless)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Names and contents of the chunks of a PNG."""
    chunks = []
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += 12 + size
    return chunks


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG with these chunks, their checksums right."""
    parts = [struct.pack(">I", len(b)) + a + b + struct.pack(">I", zlib.crc32(a + b)) for a, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")])


def every_file(seed: int = 0, width: int = 60, height: int = 44) -> dict[str, bytes]:
    """One file of each format, compression and mode, by a name that tells which."""
    image = draw(width, height, seed)
    other = draw(width, height, seed + 1)
    clear = image.copy()
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    palette = image.quantize(16)
    wide = Image.fromarray((np.asarray(image.convert("L"), np.uint16) * 257).astype(np.uint16))
    files = {fmt.lower(): save(image, fmt) for fmt in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")}
    files |= {f"{fmt.lower()}-rotated": with_orientation(image, fmt, 6) for fmt in ("JPEG", "PNG", "WEBP", "TIFF")}
    files |= {f"{fmt.lower()}-frames": animate(fmt, [image, other]) for fmt in ("GIF", "WEBP", "PNG", "TIFF", "MPO")}
    files |= {f"png-{mode}": save(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "RGBA")}
    files |= {f"tiff-{name}": save(image, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")}
    files |= {
        "jpeg-progressive": save(image, "JPEG", progressive=True),
        "jpeg-cmyk": save(image.convert("CMYK"), "JPEG"),
        "jpeg-grey": save(image.convert("L"), "JPEG"),
        "png-P": save(palette, "PNG", transparency=3),
        "png-I16": save(wide, "PNG"),
        "tiff-F": save(image.convert("F"), "TIFF"),
        "tiff-I": save(wide.convert("I"), "TIFF"),
        "tiff-1": save(image.convert("1"), "TIFF", compression="group4"),
        "webp-clear": save(clear, "WEBP", lossless=True),
        "avif-clear": save(clear, "AVIF"),
        "gif-clear": save(palette, "GIF", transparency=2),
        "bmp-P": save(palette, "BMP"),
        "pgm": save(image.convert("L"), "PPM"),
    }
    return files
