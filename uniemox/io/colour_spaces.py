"""Colour spaces that files name without an ICC profile, as such profiles.

In plain Python, because NumPy takes more memory than a decoder's process may.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

REFERENCE_WHITE = 203.0
"""Luminance in cd/m2 of white in HDR (ITU-R BT.2408)."""
HLG_REFERENCE_WHITE = 0.75
"""Signal of the same white in HLG (ITU-R BT.2408)."""
CURVE_VALUES = 1024
MAX_PROFILES = 8
"""Number of profiles in memory."""

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green, blue and white."""
D65 = (0.3127, 0.3290)
SRGB: Chromaticities = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), D65)
ADOBE_RGB: Chromaticities = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65)
PRIMARIES: dict[int, Chromaticities] = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),  # Display P3
}
"""Primaries of ITU-T H.273 that differ from sRGB so much that colours are converted."""
PQ = 16
HLG = 18

Matrix = Sequence[Sequence[float]]
MIN_DETERMINANT = 1e-9
MAX_TRISTIMULUS = 4.0
"""Maximum of X, Y and Z of a primary, where white has Y = 1; a larger one would be no light."""
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
MAX_TAGS = 100
"""Number of tags of a profile that are read."""
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_GREY_CURVES = (b"kTRC",)
_TABLES = (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2")
"""Tags that come before the curves of a profile."""
_LINEAR_CURVES = (
    b"curv" + bytes(8),
    struct.pack(">4s4xIH", b"curv", 1, 256),
    struct.pack(">4s4xHHi", b"para", 0, 0, 65536),
)
"""Starts of curves that change nothing: without values, and with an exponent of 1."""
# X, Y and Z of the white of ICC profiles.
_D50 = (0.9642, 1.0, 0.8249)


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """Colour space that a file names without a profile."""

    chromaticities: Chromaticities
    transfer: int = 0
    """Code point of PQ or HLG; 0: `gamma` counts."""
    gamma: float | None = None
    """Exponent from values to light; None: the curve of sRGB."""


@lru_cache(maxsize=MAX_PROFILES)
def profile_of(space: ColourSpace) -> bytes | None:
    """Return the ICC profile (version 2.4) of a colour space; None for chromaticities that span no colours."""
    matrix = _matrix_to_d50(space.chromaticities)
    if matrix is None:
        return None
    curve = _curve_of(space)
    tags = [(b"wtpt", _xyz(_D50))]
    tags += [(name, _xyz(matrix[i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    content = b"".join(value for _, value in tags) + curve
    # A header of 128 bytes, the number of tags, and 12 bytes for each tag; the three channels share one curve.
    table = b""
    at = 128 + 4 + 12 * (len(tags) + 3)
    for name, value in tags:
        table += struct.pack(">4sII", name, at, len(value))
        at += len(value)
    table += b"".join(struct.pack(">4sII", name, at, len(curve)) for name in (b"rTRC", b"gTRC", b"bTRC"))
    size = 128 + 4 + len(table) + len(content)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp").ljust(68, b"\0")
    header += _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags) + 3) + table + content


def with_srgb_curve(profile: bytes) -> bytes | None:
    """Return an ICC profile of linear light with the curve of sRGB instead; None for other profiles."""
    [count] = struct.unpack_from(">I", profile, 128) if len(profile) > 132 else (0,)
    table = bytearray(profile[132 : 132 + 12 * min(count, MAX_TAGS)])
    # The new curve is appended, and values of tags begin at multiples of 4.
    profile += bytes(-len(profile) % 4)
    curve = _curve_of(ColourSpace(SRGB))
    curves = _GREY_CURVES if profile[16:20] == b"GRAY" else _CURVES
    replaced = 0
    for at in range(0, len(table) - 11, 12):
        name, start = struct.unpack_from(">4sI", table, at)
        if name in _TABLES or (name in curves and not profile.startswith(_LINEAR_CURVES, start)):
            return None
        if name in curves:
            struct.pack_into(">II", table, at + 4, len(profile), len(curve))
            replaced += 1
    if replaced != len(curves):
        return None
    size = struct.pack(">I", len(profile) + len(curve))
    return size + profile[4:132] + bytes(table) + profile[132 + len(table) :] + curve


@cache
def srgb_of_light() -> bytes:
    """Return the values in sRGB of linear light, one byte for each of 65,536 steps."""
    return bytes(round(255 * _signal_of(step / 65535)) for step in range(65536))


def _signal_of(light: float) -> float:
    if light <= 0.0031308:
        return 12.92 * light
    return 1.055 * float(light ** (1 / 2.4)) - 0.055


def _curve_of(space: ColourSpace) -> bytes:
    """Return the curve of a colour space as the value of an ICC tag."""
    values = [_light_of(i / (CURVE_VALUES - 1), space) for i in range(CURVE_VALUES)]
    curve = struct.pack(">4s4xI", b"curv", CURVE_VALUES)
    return curve + struct.pack(f">{CURVE_VALUES}H", *(round(65535 * value) for value in values))


def _xyz(values: Sequence[float]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values))


def _light_of(signal: float, space: ColourSpace) -> float:
    """Return the light of a signal from 0 to 1, as a share of white, at most 1."""
    if space.transfer == PQ:  # ITU-R BT.2100, table 4
        power = signal ** (32 / 2523)
        light = (max(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return min(1.0, 10_000 * light / REFERENCE_WHITE)
    if space.transfer == HLG:
        return min(1.0, _scene_light(signal) / _scene_light(HLG_REFERENCE_WHITE))
    if space.gamma is not None:
        return float(signal**space.gamma)
    if signal <= 0.04045:
        return signal / 12.92
    return float(((signal + 0.055) / 1.055) ** 2.4)


def _scene_light(signal: float) -> float:
    """Return the light of the scene of an HLG signal (ITU-R BT.2100, table 5), without the gamma of a display."""
    if signal <= 0.5:
        return signal**2 / 3
    return (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12


def _matrix_to_d50(chromaticities: Chromaticities) -> list[tuple[float, ...]] | None:
    """Return X, Y and Z of red, green and blue, adapted to the white D50 (Bradford); None if they span no colours."""
    # X and Z are relative to y.
    if min(y for _, y in chromaticities) <= 0:
        return None
    *primaries, white = ((x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities)
    inverse = _inverse(list(zip(*primaries, strict=True)))
    if inverse is None:
        return None
    # Shares of the primaries that add up to white.
    shares = _product(inverse, white)
    scales = [to / of for to, of in zip(_product(_BRADFORD, _D50), _product(_BRADFORD, white), strict=True)]
    from_cones = _inverse(_BRADFORD)
    assert from_cones is not None
    columns = []
    for primary, share in zip(primaries, shares, strict=True):
        cones = [value * scale for value, scale in zip(_product(_BRADFORD, primary), scales, strict=True)]
        columns.append(tuple(share * value for value in _product(from_cones, cones)))
    is_light = all(abs(value) <= MAX_TRISTIMULUS for column in columns for value in column)
    return columns if is_light else None


def _product(matrix: Matrix, vector: Sequence[float]) -> tuple[float, ...]:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def _inverse(matrix: Matrix) -> Matrix | None:
    """Return the inverse of a 3 x 3 matrix by its cofactors; None if it has none."""
    (a, b, c), (d, e, f), (g, h, i) = matrix
    cofactors = [(e * i - f * h, c * h - b * i, b * f - c * e)]
    cofactors += [(f * g - d * i, a * i - c * g, c * d - a * f), (d * h - e * g, b * g - a * h, a * e - b * d)]
    determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0]
    if abs(determinant) < MIN_DETERMINANT:
        return None
    return [tuple(value / determinant for value in row) for row in cofactors]
