"""XMP files with the position of each element, so that a change of a few fields leaves all other bytes unchanged.

A library that parses XML and writes it again would change quotes, line ends, comments and prefixes. Here, expat parses
the file, and changes are made in its bytes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from uniemox.errors import DataError

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XML = "http://www.w3.org/XML/1998/namespace"
# Sidecars with thousands of brush strokes have a few MiB.
MAX_SIDECAR_BYTES = 16 * 2**20
# Elements and attributes together; each takes about 300 bytes of memory.
MAX_PARTS = 200_000
_ENCODINGS = ("utf-8", "utf8", "us-ascii", "ascii")
# Only for text that expat has accepted as a start tag.
_ATTRIBUTE = re.compile(rb"""(\s+)([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG_END = re.compile(rb"\s*/?>")
_SPACE = b" \t\r\n"
Name = tuple[str, str]
"""Namespace and local name."""


@dataclass(slots=True)
class XmlAttribute:
    """Attribute of a start tag."""

    name: Name
    raw_name: str
    value: str
    start: int
    """First byte of the space before the attribute."""
    end: int
    raw_value: str
    """Value as in the file, with its quotes."""


@dataclass(slots=True)
class XmlElement:
    """Element with its position in the file: `start` to `end`, in bytes."""

    name: Name
    raw_name: str
    attributes: list[XmlAttribute]
    start: int
    content_start: int
    """First byte after the start tag."""
    content_end: int = 0
    """First byte of the end tag; that after the element if it is an empty-element tag."""
    end: int = 0
    children: list["XmlElement"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Text directly inside the element."""
        return "".join(self.texts)

    @property
    def is_empty_tag(self) -> bool:
        """True for <a/>, False for <a></a>."""
        return self.content_end == self.content_start == self.end

    @property
    def prefix(self) -> str:
        """Prefix of the tag with its colon, such as "rdf:"; empty without one."""
        return "".join(self.raw_name.rpartition(":")[:2])

    def named(self, name: Name) -> list["XmlElement"]:
        """Return the child elements of a name."""
        return [child for child in self.children if child.name == name]

    def walk(self) -> Iterator["XmlElement"]:
        """Yield this element and all below it."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting.extend(element.children)


@dataclass(frozen=True, slots=True)
class XmpDocument:
    """Parsed XMP file."""

    data: bytes
    root: XmlElement
    rdf: XmlElement
    """The element rdf:RDF."""

    @property
    def descriptions(self) -> list[XmlElement]:
        """Elements whose attributes and children are the properties of the image."""
        return self.rdf.named((RDF, "Description"))

    def space_before(self, position: int) -> int:
        """Return the position of the first of the whitespace before a position."""
        while position and self.data[position - 1] in _SPACE:
            position -= 1
        return position


class Edits:
    """Changes of a file's bytes, applied together."""

    def __init__(self, document: XmpDocument) -> None:
        self._document = document
        self._changes: list[tuple[int, int, bytes]] = []

    def insert(self, position: int, text: bytes) -> None:
        """Insert text before a position."""
        self._changes.append((position, position, text))

    def delete(self, start: int, end: int) -> None:
        """Delete the bytes from `start` to `end`. Changes inside a larger deleted part have no effect."""
        self._changes.append((start, end, b""))

    def replace(self, start: int, end: int, text: bytes) -> None:
        """Replace the bytes from `start` to `end`."""
        self._changes.append((start, end, text))

    def delete_element(self, element: XmlElement) -> None:
        """Delete an element and the whitespace before it."""
        self.delete(self._document.space_before(element.start), element.end)

    def apply(self) -> bytes:
        """Return the changed bytes."""
        data = self._document.data
        parts = []
        position = 0
        for start, end, text in sorted(self._changes, key=lambda change: (change[0], -change[1])):
            if start < position:
                continue
            parts += [data[position:start], text]
            position = end
        return b"".join([*parts, data[position:]])


def parse(data: bytes) -> XmpDocument:
    """Parse an XMP file.

    Raises:
        DataError: With the reason, for a file that is too large, no well-formed XML in UTF-8, or without one rdf:RDF;
            and for one with a document type, because its entities may expand to gigabytes.
    """
    if len(data) > MAX_SIDECAR_BYTES:
        raise DataError(f"{len(data) / 2**20:.0f} MiB, more than the {MAX_SIDECAR_BYTES // 2**20} MiB that are read")
    _check_encoding(data)
    root = parse_xml(data)
    roots = [root] if root.name == (RDF, "RDF") else root.named((RDF, "RDF"))
    if len(roots) != 1:
        raise DataError(f"expected XMP with one element rdf:RDF, found {len(roots)}")
    return XmpDocument(data, root, roots[0])


def parse_xml(data: bytes) -> XmlElement:
    """Parse XML, and return its root.

    Raises:
        DataError: With the reason, for text that is no well-formed XML, has a document type or too many parts.
    """
    return _Parser(data).parse()


def _check_encoding(data: bytes) -> None:
    """Raise DataError for text in UTF-16, which expat would accept, and for other bytes that are no UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"no XML in UTF-8 (byte {error.start} is not UTF-8)") from error
    if b"\0" in data:
        raise DataError("no XML in UTF-8 (it has a null character)")


class _Parser:
    """Builds the elements of a file from the events of expat."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open: list[XmlElement] = []
        self._root: XmlElement | None = None
        self._parts = 0
        # Namespaces in scope by prefix, the innermost last; and the prefixes that each open element declares.
        self._namespaces = {"": [""], "xml": [_XML]}
        self._declared: list[list[str]] = []
        # The encoding replaces a declared one, which `_declare` checks.
        self._parser = expat.ParserCreate("utf-8")
        self._parser.ordered_attributes = True
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._add_text

    def parse(self) -> XmlElement:
        try:
            self._parser.Parse(self._data, True)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise DataError(f"line {error.lineno}: no XML in UTF-8 ({reason})") from error
        finally:
            # Its handlers refer to this object, which would live until the garbage collector runs.
            del self._parser
        # Expat accepts no file without a root.
        assert self._root is not None
        return self._root

    def _declare(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise DataError(f"its encoding is {encoding}; expected UTF-8")

    def _refuse_doctype(self, *_declaration: object) -> None:
        raise DataError("it has a document type (DOCTYPE), which XMP does not allow")

    def _start(self, raw_name: str, pairs: list[str]) -> None:
        self._parts += 1 + len(pairs) // 2
        if self._parts > MAX_PARTS:
            raise DataError(f"more than {MAX_PARTS:,} elements and attributes")
        start = self._parser.CurrentByteIndex
        parent = self._open[-1] if self._open else None
        declared = []
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if name == "xmlns" or name.startswith("xmlns:"):
                prefix = name.partition(":")[2]
                self._namespaces.setdefault(prefix, []).append(value)
                declared.append(prefix)
        self._declared.append(declared)
        position = start + 1 + len(raw_name.encode())
        attributes = self._attributes(position, pairs[1::2])
        if attributes:
            position = attributes[-1].end
        tag_end = _TAG_END.match(self._data, position)
        assert tag_end is not None
        element = XmlElement(self._resolve(raw_name), raw_name, attributes, start, tag_end.end())
        if parent is None:
            self._root = element
        else:
            parent.children.append(element)
        self._open.append(element)

    def _attributes(self, position: int, values: list[str]) -> list[XmlAttribute]:
        """Return the attributes of the start tag in which `position` follows the name."""
        attributes = []
        for value in values:
            match = _ATTRIBUTE.match(self._data, position)
            assert match is not None
            raw_name = match[2].decode()
            # Without a prefix, an attribute has no namespace, unlike an element.
            name = self._resolve(raw_name) if ":" in raw_name else ("", raw_name)
            attributes.append(XmlAttribute(name, raw_name, value, match.start(), match.end(), match[3].decode()))
            position = match.end()
        return attributes

    def _end(self, _raw_name: str) -> None:
        element = self._open.pop()
        for prefix in self._declared.pop():
            self._namespaces[prefix].pop()
        # After an empty-element tag, expat reports the position behind it.
        element.content_end = self._parser.CurrentByteIndex
        element.end = element.content_end
        if self._data[element.content_start - 2 : element.content_start] != b"/>":
            element.end = self._data.index(b">", element.content_end) + 1

    def _add_text(self, text: str) -> None:
        self._open[-1].texts.append(text)

    def _resolve(self, raw_name: str) -> Name:
        prefix, _, local = raw_name.rpartition(":")
        if prefix == "xmlns":
            return ("xmlns", local)
        if not self._namespaces.get(prefix):
            raise DataError(f"line {self._parser.CurrentLineNumber}: the prefix {prefix!r} has no namespace")
        return (self._namespaces[prefix][-1], local)
