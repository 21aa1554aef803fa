"""Our keyword in all lists of a sidecar.

`uniemox tag` writes it into three lists. digiKam copies each keyword into three more, and darktable adds each level of
a keyword's path. When the keyword is removed, it is removed from all of them.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, Self
from xml.sax.saxutils import escape, quoteattr

from uniemox.errors import DataError
from uniemox.insight.tag.document import RDF, Edits, XmlAttribute, XmlElement, XmpDocument, parse_xml
from uniemox.insight.tag.fields import LISTS, Record

# Lists of keywords of Windows, digiKam, iView and Lightroom, and ours. Other lists, such as the names of people, may
# have a word like "joy" for other reasons.
_FLAT_LISTS = {
    ("http://ns.microsoft.com/photo/1.0/", "LastKeywordXMP"),
    ("http://ns.microsoft.com/photo/1.0/", "LastKeywordIPTC"),
    ("http://ns.microsoft.com/photo/1.0", "LastKeywordXMP"),
    ("http://ns.microsoft.com/photo/1.0", "LastKeywordIPTC"),
    ("http://ns.iview-multimedia.com/mediapro/1.0/", "CatalogSets"),
    ("http://ns.microsoft.com/expressionmedia/1.0/", "CatalogSets"),
    ("http://ns.adobe.com/photoshop/1.0/", "SupplementalCategories"),
    ("http://ns.adobe.com/lightroom/1.0/", "weightedFlatSubject"),
    *(keyword_list.name for keyword_list in LISTS.values()),
}
# ACDSee's tree of categories is XML in a text.
_CATEGORIES = ("http://ns.acdsee.com/iptc/1.0/", "categories")
_CATEGORY = ("", "Category")
_SEPARATORS = ("|", "/")
# Words of `Record.had`.
_PATH = "path"
_ROOT = "root"
_LEAF = "leaf"


class Forms(NamedTuple):
    """Texts as which lists have a keyword such as emotion|awe."""

    paths: tuple[str, ...]
    """emotion|awe and emotion/awe."""
    root: str
    """emotion; empty for a keyword without levels."""
    leaf: str
    """awe."""

    @classmethod
    def of(cls, keyword: str) -> Self:
        """Return the forms of a keyword."""
        root, _, leaf = keyword.rpartition("|")
        return cls(tuple(keyword.replace("|", separator) for separator in _SEPARATORS), root, leaf)

    def among(self, texts: set[str]) -> frozenset[str]:
        """Return which of the forms are among texts, in the words of `Record.had`; small letters count as capitals."""
        folded = {text.casefold() for text in texts}
        forms = {_PATH: self.paths, _ROOT: (self.root,), _LEAF: (self.leaf,)}
        return frozenset(word for word, of_word in forms.items() if any(form.casefold() in folded for form in of_word))


class ListProperty(NamedTuple):
    """A property with a list of texts."""

    element: XmlElement
    items: list[XmlElement]
    """Its rdf:li."""

    @property
    def texts(self) -> set[str]:
        """Texts of the items."""
        return {item.text.strip() for item in self.items}


def list_properties(document: XmpDocument) -> Iterator[ListProperty]:
    """Yield the properties of a file that are an rdf:Bag or rdf:Seq."""
    for description in document.descriptions:
        for element in description.children:
            containers = [*element.named((RDF, "Bag")), *element.named((RDF, "Seq"))]
            if len(containers) == 1:
                yield ListProperty(element, containers[0].named((RDF, "li")))


def forms_in(document: XmpDocument, keyword: str) -> frozenset[str]:
    """Return which forms of a keyword the lists of a file have, in the words of `Record.had`."""
    texts: set[str] = set()
    for each in list_properties(document):
        texts |= each.texts
    for category in _categories(document):
        texts |= {f"{root}|{leaf}" for root, leaf in category.paths}
    return Forms.of(keyword).among(texts)


def copies_of_keyword(document: XmpDocument, record: Record) -> set[int]:
    """Return the starts of the list items that are our keyword or a level of it, except what the user has as well.

    Args:
        document: The file.
        record: What we have written.
    """
    forms = Forms.of(record.fields.get("Keyword", ""))
    properties = list(list_properties(document))
    of_user = record.had | _forms_of_user(properties, record, forms)
    if _PATH in of_user or not forms.root:
        return set()
    levels = _levels_of_others(properties, forms)
    words = {_ROOT: forms.root, _LEAF: forms.leaf}
    flat = {form for word, form in words.items() if word not in of_user and form not in levels}
    starts: set[int] = set()
    for each in properties:
        texts = flat.union(forms.paths) if each.element.name in _FLAT_LISTS else set(forms.paths)
        starts |= {item.start for item in each.items if item.text.strip() in texts}
    return starts


def _forms_of_user(properties: list[ListProperty], record: Record, forms: Forms) -> frozenset[str]:
    """Return the forms in lists of ours that did not get our keyword, because they had it."""
    of_user: set[str] = set()
    for name, keyword_list in LISTS.items():
        if name in record.added_to:
            continue
        word = _PATH if keyword_list.separator else _LEAF
        for each in properties:
            if each.element.name == keyword_list.name:
                of_user |= forms.among(each.texts) & {word}
    return frozenset(of_user)


def _levels_of_others(properties: list[ListProperty], forms: Forms) -> set[str]:
    """Return the levels of all paths but ours: of the keyword emotion|joy, both words."""
    levels: set[str] = set()
    for each in properties:
        for text in each.texts.difference(forms.paths):
            for separator in _SEPARATORS:
                if separator in text:
                    levels |= set(text.split(separator))
    return levels


class _Categories(NamedTuple):
    """ACDSee's tree of categories, which is XML in the text of an attribute or element."""

    holder: XmlAttribute | XmlElement
    tree: XmpDocument

    @property
    def paths(self) -> Iterator[tuple[str, str]]:
        """Pairs of a category and one inside it."""
        for category in self.tree.root.named(_CATEGORY):
            for inner in category.named(_CATEGORY):
                yield category.text.strip(), inner.text.strip()

    def without(self, forms: Forms, *, keeps_root: bool) -> bytes:
        """Return the XML without a keyword; empty if it has no category then.

        Args:
            forms: Forms of the keyword.
            keeps_root: The root of the keyword stays, although nothing else is in it.
        """
        edits = Edits(self.tree)
        categories = self.tree.root.named(_CATEGORY)
        removed = 0
        for category in categories:
            if category.text.strip() != forms.root:
                continue
            inner = category.named(_CATEGORY)
            ours = [each for each in inner if each.text.strip() == forms.leaf and not each.named(_CATEGORY)]
            if ours and len(ours) == len(inner) and not keeps_root:
                edits.delete_element(category)
                removed += 1
                continue
            for each in ours:
                edits.delete_element(each)
        return b"" if removed == len(categories) else edits.apply()


def _categories(document: XmpDocument) -> Iterator[_Categories]:
    """Yield the trees of categories that can be read."""
    for description in document.descriptions:
        holders: list[XmlAttribute | XmlElement] = [
            *(attribute for attribute in description.attributes if attribute.name == _CATEGORIES),
            *description.named(_CATEGORIES),
        ]
        for holder in holders:
            text = holder.value if isinstance(holder, XmlAttribute) else holder.text
            data = text.encode()
            with suppress(DataError):
                root = parse_xml(data)
                yield _Categories(holder, XmpDocument(data, root, root))


def remove_category(document: XmpDocument, edits: Edits, record: Record) -> set[int]:
    """Remove our keyword from ACDSee's tree of categories.

    Args:
        document: The file.
        edits: Changes to extend.
        record: What we have written.

    Returns:
        Starts of the attributes and elements in which no category is left.
    """
    forms = Forms.of(record.fields.get("Keyword", ""))
    emptied: set[int] = set()
    if _PATH in record.had or not forms.root:
        return emptied
    for categories in _categories(document):
        if (forms.root, forms.leaf) not in categories.paths:
            continue
        content = categories.without(forms, keeps_root=_ROOT in record.had)
        holder = categories.holder
        if not content:
            emptied.add(holder.start)
        elif isinstance(holder, XmlAttribute):
            start = holder.end - len(holder.raw_value.encode())
            edits.replace(start, holder.end, quoteattr(content.decode()).encode())
        else:
            edits.replace(holder.content_start, holder.content_end, escape(content.decode()).encode())
    return emptied
