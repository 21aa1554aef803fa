"""Photographs in other colour spaces than sRGB, converted with NumPy by the formulas of the standards."""

import struct
from collections.abc import Sequence

import numpy as np
from PIL import Image

XY = tuple[float, float]
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
PROPHOTO = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
D65 = (0.3127, 0.3290)
D50 = (0.3457, 0.3585)
PQ = 16
HLG = 18


def to_xyz(primaries: Sequence[XY], white: XY) -> np.ndarray:
    """Return the matrix from light of a colour space to XYZ, (3, 3)."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, white)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def to_light(image: Image.Image) -> np.ndarray:
    """Return the light of an sRGB image, (H, W, 3), 0 to 1."""
    values = np.asarray(image.convert("RGB")) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def light_in(image: Image.Image, primaries: Sequence[XY]) -> np.ndarray:
    """Return the light of an sRGB image in other primaries with white D65, (H, W, 3)."""
    matrix = np.linalg.solve(to_xyz(primaries, D65), to_xyz(SRGB, D65))
    return (to_light(image) @ matrix.T).clip(0, 1)


def power_values(image: Image.Image, primaries: Sequence[XY], gamma: float) -> np.ndarray:
    """Return the values of an sRGB image in a colour space with a power function, (H, W, 3), uint8."""
    return (255 * light_in(image, primaries) ** (1 / gamma)).round().astype(np.uint8)


def hdr_values(image: Image.Image, transfer: int) -> np.ndarray:
    """Return the values of an sRGB image in BT.2020 with PQ or HLG, white at 203 cd/m2; (H, W, 3), uint16."""
    light = light_in(image, BT2020)
    if transfer == PQ:
        power = (light * 203 / 10000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        scene = light * 0.2645
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
    return (signal * 65535).round().astype(np.uint16)


def icc_profile(
    primaries: Sequence[XY] | None, white: XY, gamma: float, *, space: bytes = b"RGB ", extra: bytes = b""
) -> bytes:
    """Return an ICC profile of version 2 with a power function.  primaries: None for greys.  extra: a tag `cicp`."""
    d50 = np.array([0.9642, 1, 0.8249])
    tags = [(b"wtpt", xyz(d50))]
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    if primaries is None:
        tags.append((b"kTRC", curve))
    else:
        x, y = white
        target = np.array([x / y, 1, (1 - x - y) / y])
        bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
        adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ target)) @ bradford
        matrix = adapt @ to_xyz(primaries, white)
        tags += [(key, xyz(matrix[:, i])) for i, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
        tags += [(key, curve) for key in (b"rTRC", b"gTRC", b"bTRC")]
    if extra:
        tags.append((b"cicp", extra))
    return profile_of(tags, space, b"XYZ ")


def cmyk_profile() -> bytes:
    """Return an ICC profile for CMYK by tables of two values per channel: light is (1 - ink) (1 - black)."""
    nodes = [[(corner >> 3 - i) & 1 for i in range(4)] for corner in range(16)]
    values = b""
    for cyan, magenta, yellow, black in nodes:
        light = np.array([1 - cyan, 1 - magenta, 1 - yellow]) * (1 - black)
        values += bytes(lab_of(light))
    ramp = bytes(range(256))
    identity = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + 4 * ramp + values + 3 * ramp
    return profile_of([(b"A2B0", table), (b"A2B1", table), (b"wtpt", xyz((0.9642, 1, 0.8249)))], b"CMYK", b"Lab ")


def lab_of(light: np.ndarray) -> list[int]:
    """Return L*, a* and b* of sRGB light, white D50, as bytes of an ICC table."""
    bradford = np.array([[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491]])
    bradford = np.vstack([bradford, [-0.0092345, 0.0150436, 0.7521316]])
    ratio = bradford @ to_xyz(SRGB, D65) @ light / np.array([0.9642, 1, 0.8249])
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    lightness = 116 * f[1] - 16
    a = 500 * (f[0] - f[1])
    b = 200 * (f[1] - f[2])
    return [round(value) for value in np.clip([lightness * 2.55, a + 128, b + 128], 0, 255)]


def xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(float(value) * 65536)) for value in values)


def profile_of(tags: Sequence[tuple[bytes, bytes]], space: bytes, connection: bytes) -> bytes:
    """Return a profile with these tags."""
    table = struct.pack(">I", len(tags))
    content = b""
    start = 128 + 4 + 12 * len(tags)
    for key, data in tags:
        table += key + struct.pack(">II", start + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI", start + len(content), 0x02400000) + b"mntr" + space + connection + bytes(12) + b"acsp"
    return (head.ljust(68, b"\0") + xyz((0.9642, 1, 0.8249))[8:]).ljust(128, b"\0") + table + content
