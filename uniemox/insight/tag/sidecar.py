"""Content of a sidecar file: our fields are merged with those of others, and removed again."""

import re
from collections.abc import Callable
from dataclasses import replace
from xml.sax.saxutils import escape, quoteattr

from uniemox.errors import DataError
from uniemox.insight.tag.document import RDF, Edits, Name, XmlAttribute, XmlElement, XmpDocument, parse
from uniemox.insight.tag.fields import LISTS, NAMESPACE, Inside, KeywordList, Record, Tags, digest_of, simple_values
from uniemox.insight.tag.mirrors import (
    Forms,
    ListProperty,
    copies_of_keyword,
    forms_in,
    list_properties,
    remove_category,
)

_RATING = ("http://ns.adobe.com/xap/1.0/", "Rating")
WINDOWS_RATING = ("http://ns.microsoft.com/photo/1.0/", "Rating")
"""Rating of Windows, in per cent."""
NOT_RATED = (None, "", "0")
"""Values of a rating that say that there is none; cameras write 0."""
_CONTAINERS = [(RDF, "Bag"), (RDF, "Seq"), (RDF, "Alt")]
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="uniemox">\n'
    f' <rdf:RDF xmlns:rdf="{RDF}">\n'
    " </rdf:RDF>\n"
    "</x:xmpmeta>\n"
    '<?xpacket end="w"?>\n'
).encode()
# Words in `Record.created` and `Record.opened` besides the names of lists.
_FILE = "file"
_RDF = "rdf:RDF"
_NEW_LINE = re.compile(rb"(\r\n|\n|\r)[ \t]*\Z")


def nothing_inside() -> Inside:
    """Return the metadata inside a photograph that has none."""
    return Inside({})


def write_tags(
    data: bytes | None, tags: Tags, inside: Callable[[], Inside] = nothing_inside, *, adds_rating: bool = True
) -> bytes:
    """Return the content of a sidecar with our fields; nothing else changes.

    A file that has the same answer already is returned unchanged, even if another program has written it again, or if
    somebody has deleted our keyword. The fields of an earlier answer are replaced. A rating of others stays.

    Programs take a list of keywords from the sidecar instead of the one inside the photograph. So a new list also gets
    the keywords that the photograph has in it, and a rated photograph gets no rating.

    Args:
        data: Content of the sidecar; None if there is none.
        tags: Answer to write.
        inside: Function that reads the metadata inside the photograph.
        adds_rating: Write the rating into a sidecar without one of ours. False: only update one that is ours.

    Raises:
        DataError: With the reason, if the file can't be changed.
    """
    created = frozenset[str]()
    if data is None:
        data = _EMPTY
        created = frozenset([_FILE])
    document = parse(data)
    record = Record.of(document)
    may_rate = adds_rating or "Rating" in record.fields
    if tags.rating is not None and (not may_rate or _is_rated(document, record, inside)):
        tags = replace(tags, rating=None)
    if record.fields == tags.fields:
        return data
    if record:
        data = _remove(document, record)
    return _insert(data, tags, created | (record.created & {_FILE}), inside().keywords)


def remove_tags(data: bytes) -> bytes | None:
    """Return the content of a sidecar without our fields; None if we have made the file and nothing else is in it.

    Raises:
        DataError: With the reason, if the file can't be changed.
    """
    document = parse(data)
    record = Record.of(document)
    if not record:
        return data
    data = _remove(document, record)
    if _FILE in record.created and (data == _EMPTY or _is_empty(parse(data))):
        return None
    return data


def _insert(data: bytes, tags: Tags, created: frozenset[str], inside: dict[str, list[str]]) -> bytes:
    """Add our fields to a file that has none."""
    document = parse(data)
    edits = Edits(document)
    added = set[str]()
    opened = set[str]()
    # Keywords of each list to create.
    new_lists = dict[str, list[str]]()
    has_keywords = False
    for name, keyword_list in reversed(LISTS.items()):
        own_form = keyword_list.keyword(tags.fields["Keyword"])
        container = find_list(document, keyword_list)
        keywords = inside.get(name, []) if container is None else keywords_of(container)
        # A new list would hide the others from programs that read only the first list they find.
        is_hiding = has_keywords and not keywords and container is None
        has_keywords = has_keywords or bool(keywords)
        if is_hiding:
            continue
        # Lightroom takes Awe and awe for the same keyword.
        is_new = own_form.casefold() not in (each.casefold() for each in keywords)
        if is_new:
            added.add(name)
        if container is None:
            new_lists[name] = [*keywords, own_form] if is_new else keywords
        elif is_new:
            if container.is_empty_tag:
                opened.add(name)
            _add_item(document, edits, container, own_form)
    if document.rdf.is_empty_tag:
        opened.add(_RDF)
    copied = frozenset(digest_of(name, inside[name]) for name in new_lists if name in inside)
    keyword = tags.fields["Keyword"]
    inner_texts = {text for texts in inside.values() for text in texts}
    had = forms_in(document, keyword) | Forms.of(keyword).among(inner_texts)
    record = Record(tags.fields, frozenset(added), created | new_lists.keys(), copied, frozenset(opened), had)
    description = _description_of(document, record, new_lists).encode()
    if document.rdf.children:
        edits.insert(document.rdf.children[-1].end, description)
    else:
        _add_first(edits, document.rdf, description)
    written = edits.apply()
    # The next call has to be able to read it.
    parse(written)
    return written


def keywords_of(container: XmlElement) -> list[str]:
    """Return the keywords of a list."""
    return [item.text.strip() for item in container.named((RDF, "li"))]


def _add_item(document: XmpDocument, edits: Edits, container: XmlElement, keyword: str) -> None:
    """Add a keyword to a list, behind the others."""
    tag = f"{container.prefix}li"
    item = f"<{tag}>{escape(keyword)}</{tag}>".encode()
    items = container.named((RDF, "li"))
    if items:
        space = document.data[document.space_before(items[-1].start) : items[-1].start]
        edits.insert(items[-1].end, space + item)
    else:
        _add_first(edits, container, item)


def _add_first(edits: Edits, element: XmlElement, content: bytes) -> None:
    """Add content to an element at its beginning; an empty-element tag gets an end tag."""
    if element.is_empty_tag:
        slash = element.content_start - 2
        edits.delete(slash, slash + 1)
        edits.insert(element.end, content + f"</{element.raw_name}>".encode())
    else:
        edits.insert(element.content_start, content)


def _description_of(document: XmpDocument, record: Record, new_lists: dict[str, list[str]]) -> str:
    """Return an rdf:Description with our fields and new lists of keywords, in the style of the file."""
    # All of them have to be about the same thing.
    abouts = [attribute.raw_value for description in document.descriptions for attribute in _abouts(description)]
    about = abouts[0] if abouts else '""'
    spaces = {"uniemox": NAMESPACE} | {LISTS[name].prefix: LISTS[name].name[0] for name in new_lists}
    fields = {f"uniemox:{name}": value for name, value in (record.fields | record.bookkeeping).items()}
    if "Rating" in record.fields:
        spaces["xmp"] = _RATING[0]
        fields["xmp:Rating"] = record.fields["Rating"]
    prefix = document.rdf.prefix
    if prefix.rstrip(":") in ("", *spaces):
        prefix = "rdf:"
        spaces["rdf"] = RDF
    attributes = [f"{prefix}about={about}"]
    attributes += [f"xmlns:{name}={quoteattr(value)}" for name, value in spaces.items()]
    attributes += [f"{name}={quoteattr(value)}" for name, value in fields.items()]
    line = _line_start(document)
    gap = f"{line}  " if line else " "
    tag = f"{line}<{prefix}Description {gap.join(attributes)}"
    if not new_lists:
        return f"{tag}/>"
    parts = [f"{tag}>"]
    for name, keywords in new_lists.items():
        container = f"{prefix}{LISTS[name].container}"
        items = "".join(f"<{prefix}li>{escape(keyword)}</{prefix}li>" for keyword in keywords)
        parts.append(f"{line} <{name}><{container}>{items}</{container}></{name}>")
    return "".join([*parts, f"{line}</{prefix}Description>"])


def _line_start(document: XmpDocument) -> str:
    """Return the line break and the indentation of the last rdf:Description; empty if the file has no line breaks."""
    children = document.rdf.children
    if children:
        space = document.data[document.space_before(children[-1].start) : children[-1].start]
        match = _NEW_LINE.search(space)
        return match[0].decode() if match else ""
    for line_break in ("\r\n", "\n"):
        if line_break.encode() in document.data:
            return f"{line_break}  "
    return ""


def _remove(document: XmpDocument, record: Record) -> bytes:
    """Remove our fields from a file, wherever another program has put them."""
    edits = Edits(document)
    copies = copies_of_keyword(document, record)
    deleted = remove_category(document, edits, record)
    written = (record.added_to | record.created) & LISTS.keys()
    for name in written:
        deleted |= _remove_keyword(document, edits, name, record, copies)
    names = [LISTS[name].name for name in written]
    for each in list_properties(document):
        if each.element.name not in names:
            deleted |= _remove_copies(edits, each, copies)
    for description in document.descriptions:
        _remove_fields(document, edits, description, record, deleted)
    data = edits.apply()
    if NAMESPACE.encode() in data:
        data = _without_declaration(parse(data))
    if _RDF in record.opened:
        document = parse(data)
        if document.rdf.content_start == document.rdf.content_end:
            edits = Edits(document)
            _close(edits, document.rdf)
            data = edits.apply()
    return data


def _without_declaration(document: XmpDocument) -> bytes:
    """Remove the declarations of our namespace, which other programs gather in one element, if nothing needs them."""
    edits = Edits(document)
    for element in document.root.walk():
        if NAMESPACE in (element.name[0], *(attribute.name[0] for attribute in element.attributes)):
            return document.data
        for attribute in element.attributes:
            if attribute.name[0] == "xmlns" and attribute.value == NAMESPACE:
                edits.delete(attribute.start, attribute.end)
    return edits.apply()


def _remove_copies(edits: Edits, each: ListProperty, copies: set[int]) -> set[int]:
    """Remove our keyword from a list that another program has written, and the list if it has no other keyword.

    Returns:
        Starts of the deleted properties.
    """
    ours = [item for item in each.items if item.start in copies]
    if ours and len(ours) == len(each.items):
        edits.delete_element(each.element)
        return {each.element.start}
    for item in ours:
        edits.delete_element(item)
    return set()


def _remove_keyword(document: XmpDocument, edits: Edits, name: str, record: Record, copies: set[int]) -> set[int]:
    """Remove our keyword from a list, and a list that we have made and that has no keyword of the user then.

    Args:
        document: The file.
        edits: Changes to extend.
        name: Name of the list in `LISTS`.
        record: What we have written.
        copies: Starts of items, see `copies_of_keyword`.

    Returns:
        Starts of the deleted properties.
    """
    keyword_list = LISTS[name]
    container = find_list(document, keyword_list)
    if container is None:
        return set()
    keyword = keyword_list.keyword(record.fields.get("Keyword", ""))
    items = container.named((RDF, "li"))
    starts = {item.start for item in items if item.start in copies}
    if name in record.added_to:
        starts.update([item.start for item in items if item.text == keyword][-1:])
    ours = [item for item in items if item.start in starts]
    others = [item.text for item in items if item.start not in starts]
    is_copied = digest_of(name, others) in record.copied
    if name in record.created and (not others or is_copied):
        [element] = _properties(document, keyword_list.name)
        edits.delete_element(element)
        return {element.start}
    for item in ours:
        is_alone = document.space_before(item.start) == container.content_start and item.end == container.content_end
        if name in record.opened and is_alone:
            _close(edits, container)
        else:
            edits.delete_element(item)
    return set()


def _close(edits: Edits, element: XmlElement) -> None:
    """Turn an element into an empty-element tag."""
    edits.insert(element.content_start - 1, b"/")
    edits.delete(element.content_start, element.end)


def _remove_fields(
    document: XmpDocument, edits: Edits, description: XmlElement, record: Record, deleted: set[int]
) -> None:
    """Remove our fields from an rdf:Description, or all of it if nothing else is in it.

    Args:
        document: The file.
        edits: Changes to extend.
        description: The rdf:Description.
        record: What we have written.
        deleted: Starts of properties, attributes and elements, in which only our keyword was.
    """
    rating = record.fields.get("Rating")

    def is_ours(start: int, name: Name, value: str) -> bool:
        return start in deleted or name[0] == NAMESPACE or (name == _RATING and value.strip() == rating)

    attributes = [each for each in description.attributes if is_ours(each.start, each.name, each.value)]
    children = [child for child in description.children if is_ours(child.start, child.name, child.text)]
    if not attributes and not children:
        return
    properties = sum(not _is_structure(each.name) for each in description.attributes)
    ends = [description.content_start, *(child.end for child in children)]
    starts = [*(child.start for child in children), description.content_end]
    between = [document.data[end:start] for end, start in zip(ends, starts, strict=True)]
    if properties == len(attributes) and not any(part.strip() for part in between):
        edits.delete_element(description)
        return
    for attribute in attributes:
        edits.delete(attribute.start, attribute.end)
    for child in children:
        edits.delete_element(child)


def _is_empty(document: XmpDocument) -> bool:
    """Return True if a file has no property, no comment, and nothing besides rdf:RDF."""
    has_other_parts = document.root is not document.rdf and len(document.root.children) > 1
    if has_other_parts or b"<!--" in document.data:
        return False
    return not any(
        child.children or any(not _is_structure(attribute.name) for attribute in child.attributes)
        for child in document.rdf.children
    )


def find_list(document: XmpDocument, keyword_list: KeywordList) -> XmlElement | None:
    """Return the rdf:Bag or rdf:Seq of a list of keywords; None if the file has no such property.

    Raises:
        DataError: If the property occurs twice, or is no list.
    """
    properties = _properties(document, keyword_list.name)
    name = f"{keyword_list.prefix}:{keyword_list.name[1]}"
    is_attribute = any(
        attribute.name == keyword_list.name
        for description in document.descriptions
        for attribute in description.attributes
    )
    if len(properties) + is_attribute > 1:
        raise DataError(f"it has {name} twice")
    if not properties and not is_attribute:
        return None
    containers = [child for each in properties for child in each.children if child.name in _CONTAINERS]
    if len(containers) != 1:
        raise DataError(f"its {name} is no list (rdf:Bag or rdf:Seq)")
    return containers[0]


def _properties(document: XmpDocument, name: Name) -> list[XmlElement]:
    """Return the elements of a property."""
    return [child for description in document.descriptions for child in description.named(name)]


def rating_in(document: XmpDocument, property_name: Name = _RATING) -> str | None:
    """Return the xmp:Rating of a file, or another property."""
    for description in document.descriptions:
        for name, value in simple_values(description):
            if name == property_name:
                return value.strip()
    return None


def _is_rated(document: XmpDocument, record: Record, inside: Callable[[], Inside]) -> bool:
    """Return True if the sidecar or the photograph has a rating that is not ours."""
    rating = rating_in(document)
    if rating is None:
        is_rated_by_windows = rating_in(document, WINDOWS_RATING) not in NOT_RATED
        return "Rating" not in record.fields and (is_rated_by_windows or inside().is_rated)
    return rating != record.fields.get("Rating")


def _abouts(description: XmlElement) -> list[XmlAttribute]:
    """Return the attribute rdf:about, also in its old form without a prefix."""
    return [each for each in description.attributes if each.name in ((RDF, "about"), ("", "about"))]


def _is_structure(name: Name) -> bool:
    """Return True for attributes that are no properties: rdf:about, and declarations of namespaces."""
    return name[0] in (RDF, "xmlns", "")
