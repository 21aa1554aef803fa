"""Camera raw files that tests write: DNGs, as LibRaw reads them, with previews and thumbnails."""

import io
import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

SHORT = 3
LONG = 4
RATIONAL = 5
ASCII = 2
BYTE = 1
SRATIONAL = 10
Entry = tuple[int, int, Sequence[int] | bytes]


def jpeg(image: Image.Image, **options: object) -> bytes:
    """An image as the bytes of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def dng(
    preview: bytes | None,
    *,
    orientation: int = 1,
    sensor: tuple[int, int] = (256, 192),
    is_dng: bool = True,
    thumbnail_px: tuple[int, int] = (160, 120),
    xmp: bytes = b"",
) -> bytes:
    """A camera raw: a grey thumbnail first, then the sensor's values, then the preview, as cameras order them.

    preview: bytes of a JPEG; None: none.  sensor: width and height, px.
    xmp: Packet in the first directory; empty: none.
    is_dng: False leaves out the version of DNG, as in the raws of Nikon and Sony, which LibRaw knows by their makers.
    """
    width, height = thumbnail_px
    thumbnail = bytes([90, 90, 90]) * (width * height)
    mosaic = np.full(sensor[::-1], 2000, "<u2").tobytes()
    out = bytearray(b"II*\0" + bytes(4))

    def add(data: bytes) -> int:
        out.extend(bytes(len(out) % 2))
        place = len(out)
        out.extend(data)
        return place

    def add_directory(entries: Sequence[Entry]) -> int:
        table = b""
        for tag, kind, values in sorted(entries, key=lambda entry: entry[0]):
            if isinstance(values, bytes):
                packed = values
            else:
                packed = struct.pack(f"<{len(values)}{FORMS[kind]}", *values)
            count = len(values) // (2 if kind in (RATIONAL, SRATIONAL) else 1)
            if len(packed) <= 4:
                content = packed.ljust(4, b"\0")
            else:
                content = struct.pack("<I", add(packed))
            table += struct.pack("<HHI", tag, kind, count) + content
        return add(struct.pack("<H", len(entries)) + table + bytes(4))

    raw = add_directory(
        [
            *((254, LONG, [0]), (256, LONG, [sensor[0]]), (257, LONG, [sensor[1]]), (258, SHORT, [16])),
            *((259, SHORT, [1]), (262, SHORT, [32803]), (273, LONG, [add(mosaic)]), (277, SHORT, [1])),
            *((278, LONG, [sensor[1]]), (279, LONG, [len(mosaic)]), (33421, SHORT, [2, 2]), (33422, BYTE, b"\0\1\1\2")),
            *((50717, LONG, [4095]),),
        ]
    )
    inside = [raw]
    if preview is not None:
        with Image.open(io.BytesIO(preview)) as image:
            size = image.size
        inside.append(
            add_directory(
                [
                    *((254, LONG, [1]), (256, LONG, [size[0]]), (257, LONG, [size[1]]), (258, SHORT, [8, 8, 8])),
                    *((259, SHORT, [7]), (262, SHORT, [6]), (273, LONG, [add(preview)]), (277, SHORT, [3])),
                    *((278, LONG, [size[1]]), (279, LONG, [len(preview)])),
                ]
            )
        )
    version: list[Entry] = [(50706, BYTE, b"\1\4\0\0"), (50708, ASCII, b"Maker Model\0")] if is_dng else []
    first = add_directory(
        [
            *(
                (254, LONG, [1]),
                (256, LONG, [width]),
                (257, LONG, [height]),
                (258, SHORT, [8, 8, 8]),
                (259, SHORT, [1]),
            ),
            *((262, SHORT, [2]), (271, ASCII, b"Maker\0"), (272, ASCII, b"Model\0"), (273, LONG, [add(thumbnail)])),
            *((274, SHORT, [orientation]), (277, SHORT, [3]), (278, LONG, [height]), (279, LONG, [len(thumbnail)])),
            *((306, ASCII, b"2021:07:08 09:10:11\0"), (330, LONG, inside), *version),
            *([(700, BYTE, xmp)] if xmp else []),
            (50721, SRATIONAL, [1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1]),
        ]
    )
    out[4:8] = struct.pack("<I", first)
    return bytes(out)


FORMS = {SHORT: "H", LONG: "I", RATIONAL: "I", SRATIONAL: "i", BYTE: "B"}
