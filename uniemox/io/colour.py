"""Conversion of decoded images to sRGB, with LittleCMS.

The colour space of an image comes from an ICC profile, from CICP code points (ITU-T H.273, in HEIC, AVIF, PNG and
video), from gAMA and cHRM of PNG, or from EXIF that names Adobe RGB. The last three become ICC profiles here, so that
there is one conversion: relative colorimetric with black point compensation, as browsers and Photoshop do.
HDR (PQ and HLG of ITU-R BT.2100) is shown with its reference white of 203 cd/m2 as white (ITU-R BT.2408); brighter
values become white.
"""

import io
import math
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from PIL import Image

MAX_PROFILE_BYTES = 4 * 2**20
"""Maximum size of an ICC profile that is read; those for printing have up to 3 MiB."""
MAX_SRGB_DIFFERENCE = 2
"""Maximum change of a colour, in levels of 255, for which a profile counts as sRGB; versions of sRGB differ by 1."""
CACHED_CONVERSIONS = 8
"""Number of conversions in memory; one folder seldom has more kinds of profiles."""
REFERENCE_WHITE = 203.0
"""Luminance in cd/m2 of white in HDR (ITU-R BT.2408)."""
HLG_REFERENCE_WHITE = 0.75
"""Signal of the same white in HLG (ITU-R BT.2408)."""
CURVE_VALUES = 1024
SRGB_GAMMA, GAMMA_TOLERANCE = 0.45455, 0.01
"""Value of gAMA that writers of sRGB give (PNG specification, 11.3.2.2)."""

Chromaticities = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green, blue and white."""
_D65 = (0.3127, 0.3290)
_SRGB: Chromaticities = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
_ADOBE_RGB: Chromaticities = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), _D65)
_ADOBE_GAMMA = 563 / 256
PRIMARIES: dict[int, Chromaticities] = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),  # Display P3
}
"""Primaries of ITU-T H.273 that differ from sRGB so much that colours are converted."""
PQ, HLG = 16, 18
_UNSPECIFIED = (2, 2)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
"""Transfer functions of H.273 that are powers. The others, such as that of BT.709, count as the one of sRGB."""
CICP = "cicp"
"""Key of `Image.info` with the code points (primaries, transfer function) that the file names."""

Matrix = Sequence[Sequence[float]]
MIN_DETERMINANT = 1e-9
MAX_TRISTIMULUS = 4.0
"""Maximum of X, Y and Z of a primary, where white has Y = 1; a larger one would be no light."""
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_D50 = (0.9642, 1.0, 0.8249)  # white of ICC profiles
_MODES = {
    b"RGB ": {"RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA"},
    b"GRAY": {"L": "L", "1": "L", "LA": "LA", "La": "LA"},
    b"CMYK": {"CMYK": "CMYK"},
}
"""Mode in which the pixels of an image are converted, by colour space of the profile and mode of the image."""
_PROFILE_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")

Convert = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class _Space:
    """Colour space that a file names without a profile."""

    chromaticities: Chromaticities
    transfer: int = 0
    """Code point of PQ or HLG; 0: `gamma` counts."""
    gamma: float | None = None
    """Exponent from values to light; None: the curve of sRGB."""


def to_srgb(image: Image.Image) -> Image.Image:
    """Return an image with its colours in sRGB.

    image: with 8 bits per channel and the `info` of its file; it is not changed. The result is the same object if it is
    sRGB already, or names no colour space, or has a profile that is broken, too large or of another kind of colours.
    Otherwise it has mode RGB, or RGBA if the image has transparency.
    """
    if (space := _named_space(image)) is not None:
        return _apply(image, _conversion_of_space(space), _as_colour(image))
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 < len(profile) <= MAX_PROFILE_BYTES:
        return image
    code_points = _code_points_in(profile)
    if code_points is not None and code_points[1] in (PQ, HLG):
        return _apply(image, _conversion_of_space(_space_of(*code_points)), _as_colour(image))
    mode = _MODES.get(profile[16:20], {}).get(image.mode)
    if mode is None or profile[12:16] not in _PROFILE_CLASSES:
        return image
    if "transparency" in image.info:
        mode = {"RGB": "RGBA", "L": "LA"}.get(mode, mode)
    return _apply(image, _conversion(profile, mode.removesuffix("A")), mode)


def frame_to_srgb(image: Image.Image, primaries: int, transfer: int) -> Image.Image:
    """Return an RGB frame of a video with its colours in sRGB.

    primaries, transfer: code points of ITU-T H.273. Transfer functions of SDR count as the one of sRGB, as in players.
    """
    hdr = transfer if transfer in (PQ, HLG) else 0
    return _apply(image, _conversion_of_space(_space_of(primaries, hdr)), "RGB")


def _apply(image: Image.Image, convert: Convert | None, mode: str) -> Image.Image:
    """Convert the colours of an image in a mode, and keep its transparency."""
    if convert is None:
        return image
    pixels = image if image.mode == mode and "transparency" not in image.info else image.convert(mode)
    if not mode.endswith("A"):
        return convert(pixels)
    *_, alpha = pixels.split()
    converted = convert(pixels.convert(mode.removesuffix("A")))
    converted.putalpha(alpha)
    return converted


def _as_colour(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data else "RGB"


def _named_space(image: Image.Image) -> _Space | None:
    """Return the colour space that counts instead of a profile; None if the profile counts, or there is none.

    In PNG code points come before a profile, and a profile before gAMA; in HEIC and AVIF a profile comes first.
    """
    info = image.info
    has_profile = bool(info.get("icc_profile"))
    code_points = _code_points_of(info)
    if code_points is not None and code_points != _UNSPECIFIED and (image.format == "PNG" or not has_profile):
        return _space_of(*code_points)
    if has_profile:
        return None
    if "gamma" in info and "srgb" not in info:
        return _space_of_png(info)
    if names_adobe_rgb(image):
        return _Space(_ADOBE_RGB, gamma=_ADOBE_GAMMA)
    return None


def _code_points_of(info: dict[Any, Any]) -> tuple[int, int] | None:
    """Return primaries and transfer function; None if the file names none."""
    if CICP in info:
        primaries, transfer = info[CICP]
        return primaries, transfer
    nclx = info.get("nclx_profile")  # of pillow-heif
    if isinstance(nclx, dict):
        return int(nclx.get("color_primaries", 2)), int(nclx.get("transfer_characteristics", 2))
    return None


def _space_of(primaries: int, transfer: int) -> _Space:
    hdr = transfer if transfer in (PQ, HLG) else 0
    return _Space(PRIMARIES.get(primaries, _SRGB), hdr, _GAMMAS.get(transfer))


def _space_of_png(info: dict[Any, Any]) -> _Space | None:
    value = float(info["gamma"])
    if not 0.05 <= value <= 20:
        return None
    gamma = None if abs(value - SRGB_GAMMA) < GAMMA_TOLERANCE else 1 / value
    chromaticities = _SRGB
    if len(values := info.get("chromaticity", ())) == 8:
        white, red, green, blue = (tuple(values[i : i + 2]) for i in range(0, 8, 2))
        chromaticities = (red, green, blue, white)
    return _Space(chromaticities, gamma=gamma)


def names_adobe_rgb(image: Image.Image) -> bool:
    """Return True if EXIF names Adobe RGB, as cameras do (DCF): ColorSpace is not sRGB, the interoperability R03."""
    exif = image.info.get("exif")
    if not isinstance(exif, bytes) or b"R03" not in exif:  # parsing takes longer than reading a small image
        return False
    with suppress(Exception):  # what broken EXIF raises
        tags = image.getexif()
        color_space = tags.get_ifd(0x8769).get(0xA001)
        index = tags.get_ifd(0xA005).get(1, "")
        return color_space != 1 and str(index).rstrip("\0 ") == "R03"
    return False


def _code_points_in(profile: bytes) -> tuple[int, int] | None:
    """Return the code points in the tag `cicp` of an ICC profile (ICC.1:2022, 9.2.17)."""
    (count,) = struct.unpack_from(">I", profile, 128) if len(profile) >= 132 else (0,)
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[at : at + 4] == b"cicp":
            (start,) = struct.unpack_from(">I", profile, at + 4)
            value = profile[start : start + 12]
            return (value[8], value[9]) if len(value) == 12 and value[:4] == b"cicp" else None
    return None


def _conversion_of_space(space: _Space) -> Convert | None:
    if space == _Space(_SRGB):
        return None
    profile = _profile_of(space)
    return None if profile is None else _conversion(profile, "RGB")


@lru_cache(maxsize=CACHED_CONVERSIONS)
def _conversion(profile: bytes, mode: str) -> Convert | None:
    """Return the function that converts images to sRGB; None if the profile is broken or sRGB.

    mode: RGB, L or CMYK.
    """
    from PIL import ImageCms  # noqa: PLC0415 - most images have no profile

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        colours = _test_colours(mode)
        if mode != "CMYK" and _difference(transform.apply(colours), colours.convert("RGB")) <= MAX_SRGB_DIFFERENCE:
            return None
    except (ImageCms.PyCMSError, OSError, ValueError, MemoryError):
        return None
    apply: Convert = transform.apply
    return apply


def _test_colours(mode: str) -> Image.Image:
    """Return an image with a grid of 6 values per channel, and with all greys."""
    steps = range(0, 256, 51)
    colours = [bytes((red, green, blue)) for red in steps for green in steps for blue in steps]
    colours += [bytes((grey, grey, grey)) for grey in range(256)]
    return Image.frombytes("RGB", (len(colours), 1), b"".join(colours)).convert(mode)


def _difference(one: Image.Image, other: Image.Image) -> int:
    return max(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


@lru_cache(maxsize=CACHED_CONVERSIONS)
def _profile_of(space: _Space) -> bytes | None:
    """Return the ICC profile (version 2.4) of a colour space; None for chromaticities that span no colours."""
    matrix = _matrix_to_d50(space.chromaticities)
    if matrix is None:
        return None
    values = [_light_of(i / (CURVE_VALUES - 1), space) for i in range(CURVE_VALUES)]
    curve = struct.pack(">4s4xI", b"curv", CURVE_VALUES)
    curve += struct.pack(f">{CURVE_VALUES}H", *(round(65535 * value) for value in values))
    tags = [(b"wtpt", _xyz(_D50))]
    tags += [(name, _xyz(matrix[i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    content = b"".join(value for _, value in tags) + curve
    table, at = b"", 128 + 4 + 12 * (len(tags) + 3)
    for name, value in tags:
        table += struct.pack(">4sII", name, at, len(value))
        at += len(value)
    table += b"".join(struct.pack(">4sII", name, at, len(curve)) for name in (b"rTRC", b"gTRC", b"bTRC"))
    size = 128 + 4 + len(table) + len(content)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp").ljust(68, b"\0")
    header += _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags) + 3) + table + content


def _xyz(values: Sequence[float]) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in values))


def _light_of(signal: float, space: _Space) -> float:
    """Return the light that a signal from 0 to 1 stands for, as a share of white, at most 1."""
    if space.transfer == PQ:  # ITU-R BT.2100, table 4
        power = signal ** (32 / 2523)
        light = (max(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return min(1.0, 10_000 * light / REFERENCE_WHITE)
    if space.transfer == HLG:
        return min(1.0, _scene_light(signal) / _scene_light(HLG_REFERENCE_WHITE))
    if space.gamma is not None:
        return float(signal**space.gamma)
    return signal / 12.92 if signal <= 0.04045 else float(((signal + 0.055) / 1.055) ** 2.4)


def _scene_light(signal: float) -> float:
    """Return the light of the scene of an HLG signal (ITU-R BT.2100, table 5), without the gamma of a display."""
    if signal <= 0.5:
        return signal**2 / 3
    return (math.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12


def _matrix_to_d50(chromaticities: Chromaticities) -> list[tuple[float, ...]] | None:
    """Return X, Y and Z of red, green and blue, adapted to the white D50 (Bradford); None if they span no colours.

    In plain Python, because NumPy takes more memory than a decoder's process may.
    """
    if min(y for _, y in chromaticities) <= 0:
        return None
    *primaries, white = ((x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities)
    inverse = _inverse(list(zip(*primaries, strict=True)))
    if inverse is None:
        return None
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
