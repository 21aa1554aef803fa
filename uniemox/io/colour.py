"""Conversion of decoded images to sRGB, with LittleCMS.

The colour space of an image comes from an ICC profile, from CICP code points (ITU-T H.273, in HEIC, AVIF, PNG and
video), from gAMA and cHRM of PNG, or from EXIF that names Adobe RGB. The last three become ICC profiles here, so that
there is one conversion: relative colorimetric with black point compensation, as browsers and Photoshop do.
HDR (PQ and HLG of ITU-R BT.2100) is shown with its reference white of 203 cd/m2 as white (ITU-R BT.2408); brighter
values become white.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from PIL import Image, ImageChops

from uniemox.io.colour_spaces import ADOBE_RGB, HLG, PQ, PRIMARIES, SRGB, ColourSpace, profile_of, with_srgb_curve
from uniemox.io.exif import names_adobe_rgb
from uniemox.io.low_bytes import encode_light

MAX_PROFILE_BYTES = 4 * 2**20
"""Maximum size of an ICC profile that is read; those for printing have up to 3 MiB."""
MAX_SRGB_DIFFERENCE = 2
"""Maximum change of a colour, in levels of 255, for which a profile counts as sRGB; versions of sRGB differ by 1."""
MAX_GREY_DIFFERENCE = 4
"""Maximum difference of the channels of a grey image that lossy WebP stores in colour, in levels of 255."""
CACHED_CONVERSIONS = 8
"""Number of conversions in memory; one folder seldom has more kinds of profiles."""
SRGB_GAMMA = 0.45455
GAMMA_TOLERANCE = 0.01
"""Value of gAMA that writers of sRGB give (PNG specification, 11.3.2.2)."""

# Exponent of Adobe RGB (1998).
_ADOBE_GAMMA = 563 / 256
# Code points by which a file says that it does not know its colours.
_UNSPECIFIED = (2, 2)
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
"""Transfer functions of H.273 that are powers. The others, such as that of BT.709, count as the one of sRGB."""
CICP = "cicp"
"""Key of `Image.info` with the code points (primaries, transfer function) that the file names."""
NARROW_RANGE = "narrow_range"
"""Key of `Image.info` that is True if black is 16 and white 235 of 255, see `has_narrow_range`."""

_MODES = {
    b"RGB ": {"RGB": "RGB", "RGBA": "RGBA", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"},
    b"GRAY": {"L": "L", "1": "L", "LA": "LA"},
    b"CMYK": {"CMYK": "CMYK"},
}
"""Mode in which the pixels of an image are converted, by colour space of the profile and mode of the image."""
_GREY_MODES = {"RGB": "L", "RGBA": "LA"}
"""Mode of a grey image whose decoder gives it in colour, such as that of WebP."""
_PROFILE_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")

Convert = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image, low_bytes: Image.Image | None = None) -> Image.Image:
    """Return an image with its colours in sRGB.

    A profile that is broken, too large or of another kind of colours counts as none.

    Args:
        image: Image with 8 bits per channel and the `info` of its file; it is not changed.
        low_bytes: Low bytes of values with 16 bits (see low_bytes.py), None for an image with 8 bits. They are read
            for linear light only.

    Returns:
        The same object if it is sRGB already, or names no colour space. Otherwise an image of mode RGB, or RGBA if it
        has transparency.
    """
    # A transparent colour would have to be converted, too. The inks of CMYK are no light.
    if "transparency" in image.info or image.mode == "CMYK":
        low_bytes = None
    code_points = _code_points_of(image.info)
    # In PNG, code points come before a profile; elsewhere the profile counts.
    if code_points is not None and image.format == "PNG":
        return _from_space(image, _space_of(*code_points), low_bytes)
    if image.info.get(NARROW_RANGE):
        image = _full_range(image)
    convert, mode = _profile_conversion(image)
    if convert is not None:
        if low_bytes is not None and (encoded := with_srgb_curve(image.info["icc_profile"])) is not None:
            return _apply(encode_light(image, low_bytes), _conversion(encoded, mode.removesuffix("A")), mode)
        return _apply(image, convert, mode)
    space = _space_without_profile(image)
    if space is None:
        return image
    return _from_space(image, space, low_bytes)


def _full_range(image: Image.Image) -> Image.Image:
    """Return an image of narrow range, 16 to 235, with black 0 and white 255; its transparency stays."""
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert(_as_colour(image))
    levels = [min(max(round((value - 16) * 255 / 219), 0), 255) for value in range(256)]
    *colours, last = image.getbands()
    table = [*(levels * len(colours)), *(range(256) if last == "A" else levels)]
    full = image.point(table)
    full.info = {key: value for key, value in image.info.items() if key not in (NARROW_RANGE, "transparency")}
    full.format = image.format
    return full


def keeps_colours(image: Image.Image) -> bool:
    """Return True if `to_srgb` returns a JPEG of mode RGB unchanged."""
    convert, _ = _profile_conversion(image)
    if convert is None:
        return _space_without_profile(image) is None
    return convert is _unchanged


def _from_space(image: Image.Image, space: ColourSpace, low_bytes: Image.Image | None) -> Image.Image:
    if low_bytes is not None and space.gamma == 1:
        image = encode_light(image, low_bytes, has_narrow_range=bool(image.info.get(NARROW_RANGE)))
        space = replace(space, gamma=None)
    elif image.info.get(NARROW_RANGE):
        image = _full_range(image)
    return _apply(image, _conversion_of_space(space), _as_colour(image))


def _profile_conversion(image: Image.Image) -> tuple[Convert | None, str]:
    """Return the conversion by the ICC profile, None if the profile can't be used, and the mode of its pixels."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 < len(profile) <= MAX_PROFILE_BYTES:
        return None, ""
    code_points = _code_points_in_profile(profile)
    if code_points is not None and code_points[1] in (PQ, HLG):
        return _conversion_of_space(_space_of(*code_points)), _as_colour(image)
    space = profile[16:20]
    mode = _MODES.get(space, {}).get(image.mode)
    if space == b"GRAY" and image.mode in _GREY_MODES and _is_grey(image):
        mode = _GREY_MODES[image.mode]
    if mode is None or profile[12:16] not in _PROFILE_CLASSES:
        return None, ""
    if "transparency" in image.info:
        mode = {"RGB": "RGBA", "L": "LA"}.get(mode, mode)
    return _conversion(profile, mode.removesuffix("A")), mode


def _is_grey(image: Image.Image) -> bool:
    """Return True if the channels of an image in colour are equal, but for the rounding of lossy compression."""
    red, green, blue = image.split()[:3]
    differences: list[Any] = [ImageChops.difference(green, other).getextrema() for other in (red, blue)]
    return all(highest <= MAX_GREY_DIFFERENCE for _, highest in differences)


def frame_to_srgb(image: Image.Image, primaries: int, transfer: int) -> Image.Image:
    """Return an RGB frame of a video with its colours in sRGB.

    Transfer functions of SDR count as the one of sRGB, as in players.

    Args:
        image: The frame.
        primaries: Code point of its primaries (ITU-T H.273).
        transfer: Code point of its transfer function.
    """
    hdr = transfer if transfer in (PQ, HLG) else 0
    return _apply(image, _conversion_of_space(_space_of(primaries, hdr)), "RGB")


def _apply(image: Image.Image, convert: Convert | None, mode: str) -> Image.Image:
    """Convert the colours of an image in a mode, and keep its transparency."""
    if convert is None or convert is _unchanged:
        return image
    is_in_mode = image.mode == mode and "transparency" not in image.info
    pixels = image if is_in_mode else image.convert(mode)
    if not mode.endswith("A"):
        return convert(pixels)
    *_, alpha = pixels.split()
    converted = convert(pixels.convert(mode.removesuffix("A")))
    converted.putalpha(alpha)
    return converted


def _as_colour(image: Image.Image) -> str:
    return "RGBA" if image.has_transparency_data else "RGB"


def _space_without_profile(image: Image.Image) -> ColourSpace | None:
    """Return the colour space of an image without a usable profile; None if it names none."""
    info = image.info
    if (code_points := _code_points_of(info)) is not None:
        return _space_of(*code_points)
    # The chunk sRGB of a PNG comes before gAMA and cHRM.
    if "srgb" in info:
        return None
    if "gamma" in info:
        return _space_of_png(info)
    if image.mode != "CMYK" and names_adobe_rgb(image):
        return ColourSpace(ADOBE_RGB, gamma=_ADOBE_GAMMA)
    return None


def _code_points_of(info: dict[Any, Any]) -> tuple[int, int] | None:
    """Return primaries and transfer function; None if the file names none."""
    code_points = info.get(CICP)
    # pillow-heif gives the code points of HEIC under this key.
    nclx = info.get("nclx_profile")
    if code_points is None and isinstance(nclx, dict):
        code_points = int(nclx.get("color_primaries", 2)), int(nclx.get("transfer_characteristics", 2))
    return None if code_points == _UNSPECIFIED else code_points


def _space_of(primaries: int, transfer: int) -> ColourSpace:
    hdr = transfer if transfer in (PQ, HLG) else 0
    return ColourSpace(PRIMARIES.get(primaries, SRGB), hdr, _GAMMAS.get(transfer))


def _space_of_png(info: dict[Any, Any]) -> ColourSpace | None:
    """Return the colour space of gAMA and cHRM of a PNG; None if its gamma is no real one."""
    value = float(info["gamma"])
    if not 0.05 <= value <= 20:
        return None
    is_srgb = abs(value - SRGB_GAMMA) < GAMMA_TOLERANCE
    gamma = None if is_srgb else 1 / value
    chromaticities = SRGB
    if len(values := info.get("chromaticity", ())) == 8:
        white, red, green, blue = (tuple(values[i : i + 2]) for i in range(0, 8, 2))
        chromaticities = (red, green, blue, white)
    return ColourSpace(chromaticities, gamma=gamma)


def _code_points_in_profile(profile: bytes) -> tuple[int, int] | None:
    """Return the code points in the tag `cicp` of an ICC profile (ICC.1:2022, 9.2.17)."""
    (count,) = struct.unpack_from(">I", profile, 128) if len(profile) >= 132 else (0,)
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[at : at + 4] == b"cicp":
            (start,) = struct.unpack_from(">I", profile, at + 4)
            value = profile[start : start + 12]
            if len(value) == 12 and value[:4] == b"cicp":
                return (value[8], value[9])
            return None
    return None


def _conversion_of_space(space: ColourSpace) -> Convert | None:
    """Return the conversion of a colour space. Primaries that make no colours count as those of sRGB."""
    if space == ColourSpace(SRGB):
        return None
    profile = profile_of(space) or profile_of(replace(space, chromaticities=SRGB))
    if profile is None:
        return None
    return _conversion(profile, "RGB")


@lru_cache(maxsize=CACHED_CONVERSIONS)
def _conversion(profile: bytes, mode: str) -> Convert | None:
    """Return the function that converts images to sRGB: `_unchanged` if the profile is sRGB, None if it is broken.

    Args:
        profile: Bytes of the ICC profile.
        mode: Mode of the images: RGB, L or CMYK.
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
        # Versions of sRGB differ in bytes but not in colours, so the effect is compared.
        colours = _test_colours(mode)
        if mode != "CMYK" and _difference(transform.apply(colours), colours.convert("RGB")) <= MAX_SRGB_DIFFERENCE:
            return _unchanged
    except (ImageCms.PyCMSError, OSError, ValueError, MemoryError):
        return None
    apply: Convert = transform.apply
    return apply


def _unchanged(image: Image.Image) -> Image.Image:
    return image


def _test_colours(mode: str) -> Image.Image:
    """Return an image with a grid of 6 values per channel, and with all greys."""
    steps = range(0, 256, 51)
    colours = [bytes((red, green, blue)) for red in steps for green in steps for blue in steps]
    colours += [bytes((grey, grey, grey)) for grey in range(256)]
    return Image.frombytes("RGB", (len(colours), 1), b"".join(colours)).convert(mode)


def _difference(image: Image.Image, other: Image.Image) -> int:
    """Return the largest difference of two images, in levels of 255."""
    return max(abs(a - b) for a, b in zip(image.tobytes(), other.tobytes(), strict=True))
