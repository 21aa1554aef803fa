"""Fields that we write into a sidecar, and the record of them that the sidecar keeps."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Self

from uniemox.insight.tag.document import Name, XmlElement, XmpDocument

# A random UUID: unique without an address that somebody would have to keep. The # ends the namespace, as in RDF.
NAMESPACE = "urn:uuid:991877be-9b20-44a0-baf2-7d50b670a246#"


class KeywordList(NamedTuple):
    """A property that lists keywords."""

    prefix: str
    name: Name
    container: str
    separator: str
    """Separator of a path of keywords; empty if only the last keyword is written."""

    def keyword(self, path: str) -> str:
        """Return the form in which the list has a path such as emotion|awe."""
        return path.replace("|", self.separator) if self.separator else path.rpartition("|")[2]


LISTS = {
    "digiKam:TagsList": KeywordList("digiKam", ("http://www.digikam.org/ns/1.0/", "TagsList"), "Seq", "/"),
    "lr:hierarchicalSubject": KeywordList(
        "lr", ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject"), "Bag", "|"
    ),
    "dc:subject": KeywordList("dc", ("http://purl.org/dc/elements/1.1/", "subject"), "Bag", ""),
}
"""Lists in the order in which programs look for keywords; many read only the first that a file has."""


# Fields of `Record` besides the answer, in its order.
_SETS = ("AddedTo", "Created", "Copied", "Opened", "Had")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Answer about an image, as a sidecar has it."""

    keyword: str
    """Path, such as emotion|awe."""
    probability: float
    """Probability of the label, 0 to 1."""
    valence: float | None
    """1 to 9, or None if the model predicts none."""
    arousal: float | None
    """1 to 9, or None if the model predicts none."""
    kind: str
    """Kind of emotion: evoked, felt or expressed."""
    model: str
    model_hash: str
    is_unfamiliar: bool = False
    """True if the answer is a guess."""
    rating: int | None = None
    """xmp:Rating for the valence, 1 to 5; None: none."""

    @property
    def fields(self) -> dict[str, str]:
        """Fields in our namespace."""
        numbers = {"Valence": self.valence, "Arousal": self.arousal}
        values = {
            "Keyword": self.keyword,
            "Probability": f"{self.probability:.2f}",
            **{name: f"{value:.2f}" for name, value in numbers.items() if value is not None},
            "Kind": self.kind,
            "Model": self.model,
            "ModelHash": self.model_hash,
        }
        if self.is_unfamiliar:
            values["Unfamiliar"] = "True"
        if self.rating is not None:
            values["Rating"] = str(self.rating)
        return {name: printable(value) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Record:
    """Our changes of a sidecar, which its fields in our namespace record."""

    fields: dict[str, str]
    added_to: frozenset[str] = frozenset()
    """Lists that have got our keyword."""
    created: frozenset[str] = frozenset()
    """Lists that we have made; "file" if the whole file is ours."""
    copied: frozenset[str] = frozenset()
    """Digests, from `digest_of`, of the keywords that such lists have from inside the photograph."""
    opened: frozenset[str] = frozenset()
    """Lists, or rdf:RDF, that were empty-element tags before."""
    had: frozenset[str] = frozenset()
    """Forms of our keyword that some list had before, see `mirrors.Forms`: path, root, leaf."""

    @classmethod
    def of(cls, document: XmpDocument) -> Self:
        """Read the record of a file; it is empty if the file has none."""
        fields: dict[str, str] = {}
        for description in document.descriptions:
            fields |= {name: value for (space, name), value in simple_values(description) if space == NAMESPACE}
        sets = {name: frozenset(fields.pop(name, "").split()) for name in _SETS}
        return cls(fields, *(sets[name] for name in _SETS))

    def __bool__(self) -> bool:
        """Return True if the file has a field of ours."""
        return bool(self.fields or self.bookkeeping)

    @property
    def bookkeeping(self) -> dict[str, str]:
        """Fields that say how to undo the changes."""
        sets = (self.added_to, self.created, self.copied, self.opened, self.had)
        return {name: " ".join(sorted(words)) for name, words in zip(_SETS, sets, strict=True) if words}


class Inside(NamedTuple):
    """Metadata inside a photograph, which a sidecar must not hide."""

    keywords: dict[str, list[str]]
    """Keywords of each list that has some, by its name in `LISTS`."""
    is_rated: bool = False
    """True for an xmp:Rating other than 0, which cameras write for "not rated"."""


def digest_of(name: str, keywords: Iterable[str]) -> str:
    """Return a word that tells if a list has the same keywords, in any order."""
    return f"{name}={sha256(json.dumps(sorted(keywords)).encode()).hexdigest()[:16]}"


def simple_values(description: XmlElement) -> list[tuple[Name, str]]:
    """Return the properties of an rdf:Description that are text, as attributes or as elements."""
    values = [(attribute.name, attribute.value) for attribute in description.attributes]
    return values + [(child.name, child.text) for child in description.children if not child.children]


def printable(text: str) -> str:
    """Replace characters that XML can't have, and line breaks."""
    return "".join(character if character.isprintable() else " " for character in text)
