"""Metadata inside a photograph that its sidecar must not hide: keywords of XMP and IPTC, a rating of XMP or EXIF."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageFile, IptcImagePlugin
from PIL.ExifTags import Base as Tag

from uniemox.errors import DataError, ImageError
from uniemox.insight.tag.document import parse
from uniemox.insight.tag.fields import LISTS, Inside, KeywordList, printable
from uniemox.insight.tag.sidecar import NOT_RATED, WINDOWS_RATING, find_list, keywords_of, rating_in
from uniemox.io.borders import image_border
from uniemox.io.exif import exif_without_xmp
from uniemox.io.files import read_limited
from uniemox.io.images import MAX_BYTES, open_image
from uniemox.io.raw_preview import exif_of_raw, is_raw

# Record 2, data set 25 of IPTC-IIM.
_IPTC_KEYWORDS = (2, 25)
# Texts of a PNG in which ImageMagick, digiKam and Shotwell store IPTC and XMP, in hexadecimal digits after three lines.
_IPTC_OF_PNG = ("Raw profile type iptc", "Raw profile type APP13")
_XMP_OF_PNG = ("Raw profile type xmp", "Raw profile type APP1")
# Beginning of XMP in a segment of a JPEG, which such a text may be a copy of.
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
# Tag of a TIFF with Photoshop's resources, and the number of the resource with IPTC.
_RESOURCES = 34377
_IPTC_RESOURCE = 0x0404
# The keywords that Windows writes beside or instead of dc:subject.
_WINDOWS_KEYWORDS = KeywordList("MicrosoftPhoto", ("http://ns.microsoft.com/photo/1.0/", "LastKeywordXMP"), "Bag", "")
# Rating, which RawTherapee, exiftool and cameras write: stars, and per cent.
_EXIF_RATINGS = (0x4746, 0x4749)


def read_inside(path: str | os.PathLike[str]) -> Inside:
    """Return the keywords and the rating inside a photograph.

    Keywords of IPTC count as dc:subject, if there are none. Metadata that can't be read count as none: other programs
    can't read them either.
    """
    try:
        with image_border(str(path)):
            data = read_limited(path, MAX_BYTES)
            # Of a camera raw, `open_image` opens the preview; Lightroom writes into the raw's own directory.
            raw_exif = exif_of_raw(data) if is_raw(data) else None
            own_packet = None if raw_exif is None else raw_exif.get(Tag.XMLPacket)
            image = open_image(data, str(path))
            exif = exif_without_xmp(image) if raw_exif is None else raw_exif
            packet = own_packet if isinstance(own_packet, bytes) else image.info.get("xmp", b"")
            packet = packet or _profile_of_png(image.info, _XMP_OF_PNG).removeprefix(_XMP_SEGMENT)
            iptc = IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None
    except (ImageError, OSError):
        return Inside({})
    inside = _read_xmp(packet)
    if any(exif.get(tag) for tag in _EXIF_RATINGS):
        inside = inside._replace(is_rated=True)
    values = (iptc or {}).get(_IPTC_KEYWORDS, [])
    words = values if isinstance(values, list) else [values]
    words = words or _iptc_words(_profile_of_png(image.info, _IPTC_OF_PNG)) or _iptc_words(_iptc_of_tiff(image))
    if words and "dc:subject" not in inside.keywords:
        inside.keywords["dc:subject"] = [_decode(word) for word in words]
    return inside


def _profile_of_png(texts: Mapping[Any, Any], names: Sequence[str]) -> bytes:
    """Return the first profile of one of these names in a PNG's texts; empty if there is none, or it is damaged."""
    profile = next((texts[name] for name in names if isinstance(texts.get(name), str)), "")
    # A blank line, the name of the profile, its length, and the digits.
    try:
        return bytes.fromhex("".join(profile.split()[2:]))
    except ValueError:
        return b""


def _iptc_of_tiff(image: Image.Image) -> bytes:
    """Return the IPTC in Photoshop's resources of a TIFF; empty if there is none, or it is damaged."""
    resources = getattr(image, "tag_v2", {}).get(_RESOURCES, b"")
    if not isinstance(resources, bytes):
        return b""
    start = 0
    # Each resource: 8BIM, its number, a name with its length, the content's size, the content; both padded to even.
    while resources[start : start + 4] == b"8BIM" and start + 12 <= len(resources):
        number = int.from_bytes(resources[start + 4 : start + 6], "big")
        name_size = 1 + resources[start + 6]
        content = start + 6 + name_size + name_size % 2 + 4
        size = int.from_bytes(resources[content - 4 : content], "big")
        if number == _IPTC_RESOURCE:
            return resources[content : content + size]
        start = content + size + size % 2
    return b""


def _iptc_words(block: bytes) -> list[bytes]:
    """Return the keywords in IPTC; none if it can't be read."""
    start = block.find(b"\x1c\x02")
    words = []
    # Each data set: 0x1c, record, number, size in two bytes, value.
    while 0 <= start <= len(block) - 5 and block[start] == 0x1C:
        size = int.from_bytes(block[start + 3 : start + 5], "big")
        if (block[start + 1], block[start + 2]) == _IPTC_KEYWORDS:
            words.append(block[start + 5 : start + 5 + size])
        start += 5 + size
    return words


def _read_xmp(packet: bytes) -> Inside:
    """Return the keywords and the rating in XMP; nothing if it can't be read."""
    if not packet:
        return Inside({})
    try:
        document = parse(packet.rstrip(b"\0"))
        containers = {name: find_list(document, keyword_list) for name, keyword_list in LISTS.items()}
        if containers["dc:subject"] is None:
            containers["dc:subject"] = find_list(document, _WINDOWS_KEYWORDS)
    except DataError:
        return Inside({})
    lists = {name: keywords_of(container) for name, container in containers.items() if container is not None}
    keywords = {name: [printable(keyword) for keyword in words] for name, words in lists.items() if words}
    ratings = (rating_in(document), rating_in(document, WINDOWS_RATING))
    return Inside(keywords, is_rated=any(rating not in NOT_RATED for rating in ratings))


def _decode(word: bytes) -> str:
    """Return a keyword of IPTC: UTF-8, or Latin-1 of old programs."""
    try:
        return printable(word.decode())
    except UnicodeDecodeError:
        return printable(word.decode("latin-1"))
