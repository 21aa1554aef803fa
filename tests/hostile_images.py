"""Small files that cost a decoder much time or memory, or whose header says one size and whose content has another.

    python -m tests.hostile_images

decodes each in a process of a pool, and prints its bytes, what became of it, and the seconds and MiB that it took. The
exit code is 1 if one took more than 5 s of processor time or 750 MiB.
"""

import os
import struct
import sys
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from tests.images import draw, png_chunks, png_of, save
from tests.processes import peak_mib
from uniemox.errors import ImageError
from uniemox.io.decoding.pool import DecoderPool

AC_TABLE = b"\xff\xc4\x00\x14\x10" + b"\x01" + bytes(15) + b"\xe0"  # one code, 0: 2^14 empty blocks, and 14 bits more
AC_REFINEMENT = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10"  # a scan of the grey's coefficients 1 to 63, bit 0 again
MEBIBYTE = 2**20
MAX_S = 5
MAX_MIB = 750
LYING_AVIF = Path(__file__).parent / "reference/lying.avif"
"""Says 64 x 64 px and holds 16,000 x 16,000 of one colour: `lying_avif(16000, 16000)`."""


def progressive_jpeg(scans: int, width: int = 4000, height: int = 4000) -> bytes:
    """A grey progressive JPEG with so many scans more, each of which visits every block and says little."""
    plain = save(Image.new("L", (width, height), 128), "JPEG", progressive=True)
    end = plain.rindex(b"\xff\xd9")
    runs = -(-(-(-width // 8) * -(-height // 8)) // 2**14)
    bits = ("0" + "1" * 14) * runs  # as long as runs can be: the last one goes beyond the image
    bits += "1" * (-len(bits) % 8)
    entropy = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return plain[:end] + AC_TABLE + (AC_REFINEMENT + entropy) * scans + plain[end:]


def lying_avif(width: int, height: int, says: tuple[int, int] = (64, 64)) -> bytes:
    """An AVIF whose image is larger than its property `ispe` says."""
    data = save(Image.new("L", (width, height)).convert("RGB"), "AVIF", quality=1, speed=10)
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", *says) + data[at + 8 :]


def tiff_of(tags: Sequence[tuple[int, int, int]], content: bytes, at: int = 500) -> bytes:
    """A TIFF with these tags (number, type, value), and content from a byte on."""
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted(tags))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(at, b"\0") + content


def tiled_tiff(side: int, tile: int) -> bytes:
    """A grey TIFF of one tile that is larger than the image."""
    content = zlib.compress(bytes(tile * tile), 9)
    sizes = [(256, 3, side), (257, 3, side), (322, 4, tile), (323, 4, tile), (324, 4, 500), (325, 4, len(content))]
    return tiff_of([*sizes, (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1)], content)


def jpeg_in_tiff(scans: int, side: int) -> bytes:
    """A grey TIFF of one strip that is a JPEG with so many scans more."""
    content = progressive_jpeg(scans, side, side)
    sizes = [(256, 3, side), (257, 3, side), (273, 4, 500), (278, 4, side), (279, 4, len(content))]
    return tiff_of([*sizes, (258, 3, 8), (259, 3, 7), (262, 3, 1), (277, 3, 1)], content)


def webp_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A WebP with these chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def animated_webp(canvas: int, frame: int, content: bytes) -> bytes:
    """A WebP of one frame that says its canvas and its frame have such sides.  content: another WebP's chunks."""
    sides, own = (struct.pack("<I", side - 1)[:3] * 2 for side in (canvas, frame))
    frame_chunk = bytes(6) + own + b"\1\0\0\0" + content
    return webp_of([(b"VP8X", b"\2\0\0\0" + sides), (b"ANIM", bytes(6)), (b"ANMF", frame_chunk)])


def after_the_start(data: bytes, at: int, more: bytes) -> bytes:
    """Bytes put into a file."""
    return data[:at] + more + data[at:]


def every_hostile_file() -> dict[str, bytes]:
    """By a name that tells what it does; about 90 MB in all."""
    image = draw()
    jpeg = save(image, "JPEG")
    gif = save(image, "GIF")
    chunks = png_chunks(save(image, "PNG"))
    start = 13 + (3 << (gif[10] & 7) + 1)
    frame = gif.index(b",", start)
    large = save(Image.new("RGB", (9000, 9000)), "WEBP", lossless=True)[12:]
    small = save(image, "WEBP", lossless=True)[12:]
    text = b"1 " * 4_500_000
    return {
        "jpeg, 20,000 scans": progressive_jpeg(20_000, 1000, 1000),
        "jpeg, scans of many pixels": progressive_jpeg(90, 5000, 5000),
        "jpeg, fill bytes": after_the_start(jpeg, 2, b"\xff" * 9_000_000),
        "jpeg, segments": after_the_start(jpeg, 2, b"\xff\xe5\x00\x02" * 2_000_000),
        "jpeg, comments": after_the_start(jpeg, 2, b"\xff\xfe\x00\x03a" * 1_800_000),
        "jpeg, junk": after_the_start(jpeg, 2, b"\xff\x00" * 4_500_000),
        "jpeg, tables": after_the_start(jpeg, 2, (b"\xff\xdb\x00\x43\x00" + b"\1" * 64) * 130_000),
        "png, chunks": png_of([chunks[0], *[(b"abCd", b"")] * 700_000, *chunks[1:]]),
        "png, chunks at the end": png_of([*chunks[:-1], *[(b"abCd", b"")] * 700_000, chunks[-1]]),
        "png, texts": png_of([chunks[0], *[(b"tEXt", b"a\0b")] * 600_000, *chunks[1:]]),
        "png, inflated texts": png_of([chunks[0], *[(b"zTXt", b"a\0\0" + zlib.compress(bytes(MEBIBYTE)))] * 200]),
        "png, inflated profile": png_of([chunks[0], (b"iCCP", b"a\0\0" + zlib.compress(bytes(2**26))), *chunks[1:]]),
        "gif, comment": after_the_start(gif, start, b"!\xfe" + b"\1a" * 4_500_000 + b"\0"),
        "gif, comments": after_the_start(gif, start, b"!\xfe\1a\0" * 1_800_000),
        "gif, junk": after_the_start(gif, start, bytes(9_000_000)),
        "gif, frame far off": gif[: frame + 1] + struct.pack("<HH", 9000, 9000) + gif[frame + 5 :],
        "gif, frames": gif[:-1] + gif[frame:-1] * 3000 + b";",
        "ppm, text": b"P3\n1700 880\n255\n" + text,
        "ppm, comment": b"P6\n" + b"#" * 9_000_000 + b"\n10 10 255\n" + bytes(300),
        "ppm, comments": b"P6\n" + b"#a\n" * 3_000_000 + b"10 10 255\n" + bytes(300),
        "tiff, tile larger than image": tiled_tiff(64, 16_000),
        "tiff, jpeg of many scans": jpeg_in_tiff(90, 5000),
        "webp, larger than canvas": webp_of([(b"VP8X", bytes(4) + b"\x3f\0\0" * 2), *_chunks(large)]),
        "webp, frame larger than canvas": animated_webp(64, 9000, large),
        "webp, content larger than frame": animated_webp(64, 64, large),
        "webp, canvas larger than frame": animated_webp(9900, 60, small),
        "webp, 90 megapixels": webp_of(_chunks(save(Image.new("RGBA", (9500, 9500)), "WEBP", lossless=True)[12:])),
        "avif, larger than it says": LYING_AVIF.read_bytes(),
        "png, header of another": png_of([(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0)), *chunks[1:]]),
    }


def _chunks(body: bytes) -> list[tuple[bytes, bytes]]:
    """The one chunk of a WebP's body."""
    return [(body[:4], body[8 : 8 + struct.unpack("<I", body[4:8])[0]])]


def main() -> int:
    """Decode all of them, each in a new process."""
    is_well = True
    for name, data in every_hostile_file().items():
        with closing(DecoderPool(1)) as pool:
            pool.start_all()
            [child] = pool._children
            before = _processor_s(child.process.pid)
            try:
                result = f"{pool.decode(data, '')[0].size}"
            except ImageError as error:
                result = str(error)[2:90]
            taken = [_processor_s(one.process.pid) - before for one in pool._children if one is child]
            peaks = [peak_mib(one.process.pid) for one in pool._children if one is child]
        seconds, mib = (max(values, default=float("inf")) for values in (taken, peaks))
        is_well &= seconds <= MAX_S and mib <= MAX_MIB
        print(f"{name:32}{len(data):>10,} B {seconds:6.2f} s {mib:5.0f} MiB  {result}", flush=True)
    return 0 if is_well else 1


def _processor_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
