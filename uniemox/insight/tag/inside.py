"""Metadata inside a photograph that its sidecar must not hide: keywords of XMP and of IPTC, and a rating."""

import os

from PIL import ImageFile, IptcImagePlugin
from PIL.ExifTags import Base as Tag

from uniemox.errors import DataError, ImageError
from uniemox.insight.tag.document import parse
from uniemox.insight.tag.fields import LISTS, Inside, printable
from uniemox.insight.tag.sidecar import find_list, keywords_of, rating_in
from uniemox.io.borders import image_border
from uniemox.io.files import read_limited
from uniemox.io.images import MAX_BYTES, open_image
from uniemox.io.raw_preview import exif_of_raw, is_raw

# Record 2, data set 25 of IPTC-IIM.
_IPTC_KEYWORDS = (2, 25)


def read_inside(path: str | os.PathLike[str]) -> Inside:
    """Return the keywords and the rating inside a photograph.

    Keywords of IPTC count as dc:subject, if there are none. Metadata that can't be read count as none: other programs
    can't read them either.
    """
    try:
        with image_border(str(path)):
            data = read_limited(path, MAX_BYTES)
            # Of a camera raw, `open_image` opens the preview; Lightroom writes into the raw's own directory.
            own_packet = exif_of_raw(data).get(Tag.XMLPacket) if is_raw(data) else None
            image = open_image(data, str(path))
            packet = own_packet if isinstance(own_packet, bytes) else image.info.get("xmp", b"")
            iptc = IptcImagePlugin.getiptcinfo(image) if isinstance(image, ImageFile.ImageFile) else None
    except (ImageError, OSError):
        return Inside({})
    inside = _read_xmp(packet)
    values = (iptc or {}).get(_IPTC_KEYWORDS, [])
    words = values if isinstance(values, list) else [values]
    if words and "dc:subject" not in inside.keywords:
        inside.keywords["dc:subject"] = [_decode(word) for word in words]
    return inside


def _read_xmp(packet: bytes) -> Inside:
    """Return the keywords and the rating in XMP; nothing if it can't be read."""
    if not packet:
        return Inside({})
    try:
        document = parse(packet.rstrip(b"\0"))
        containers = {name: find_list(document, keyword_list) for name, keyword_list in LISTS.items()}
    except DataError:
        return Inside({})
    lists = {name: keywords_of(container) for name, container in containers.items() if container is not None}
    keywords = {name: [printable(keyword) for keyword in words] for name, words in lists.items() if words}
    return Inside(keywords, is_rated=rating_in(document) not in (None, "", "0"))


def _decode(word: bytes) -> str:
    """Return a keyword of IPTC: UTF-8, or Latin-1 of old programs."""
    try:
        return printable(word.decode())
    except UnicodeDecodeError:
        return printable(word.decode("latin-1"))
