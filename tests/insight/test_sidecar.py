"""Content of sidecar files: merging, replacing and removing our fields, without a change of others'."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr, unescape

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uniemox.errors import DataError
from uniemox.insight.tag.document import MAX_PARTS, MAX_SIDECAR_BYTES, RDF, parse
from uniemox.insight.tag.fields import LISTS, NAMESPACE, Inside, Record, Tags
from uniemox.insight.tag.sidecar import remove_tags, write_tags

SIDECARS = Path(__file__).parent / "sidecars"
PROGRAMS = ("darktable", "digikam", "immich", "lightroom")
TAGS = Tags(
    keyword="emotion|awe",
    probability=0.625,
    valence=6.2,
    arousal=3.125,
    kind="evoked",
    model="embedded",
    model_hash="0123456789abcdef",
)
OTHER = replace(TAGS, keyword="emotion|fear", probability=0.5, valence=2.0, model="mine", rating=1)
SPACES = {name: keyword_list.name[0] for name, keyword_list in LISTS.items()}
XMP = "http://ns.adobe.com/xap/1.0/"


def sidecar_of(program: str) -> bytes:
    """A sidecar as the program writes it: attributes, elements, quotes, line ends, xpacket."""
    return (SIDECARS / f"{program}.xmp").read_bytes()


def document_of(properties: str, spaces: str = "") -> bytes:
    """A sidecar with one rdf:Description."""
    dc, lr, digikam = (SPACES[name] for name in ("dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList"))
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:dc="{dc}" xmlns:lr="{lr}" xmlns:digiKam="{digikam}" xmlns:xmp="{XMP}"{spaces}>{properties}'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def keywords_in(data: bytes, name: str) -> list[str] | None:
    """The keywords of a list, read by another parser; None without the list."""
    space, local = LISTS[name].name
    properties = list(ET.fromstring(data).iter(f"{{{space}}}{local}"))
    if not properties:
        return None
    [only] = properties
    return [item.text or "" for item in only.iter(f"{{{RDF}}}li")]


def test_a_new_file_has_all_lists_and_numbers() -> None:
    data = write_tags(None, TAGS)
    assert keywords_in(data, "dc:subject") == ["awe"]
    assert keywords_in(data, "lr:hierarchicalSubject") == ["emotion|awe"]
    assert keywords_in(data, "digiKam:TagsList") == ["emotion/awe"]
    [description] = ET.fromstring(data).iter(f"{{{RDF}}}Description")
    ours = {name.removeprefix(f"{{{NAMESPACE}}}"): value for name, value in description.attrib.items()}
    assert ours["Keyword"] == "emotion|awe"
    assert (ours["Probability"], ours["Valence"], ours["Arousal"]) == ("0.62", "6.20", "3.12")
    assert (ours["Model"], ours["ModelHash"]) == ("embedded", "0123456789abcdef")
    assert f"{{{XMP}}}Rating" not in description.attrib
    assert remove_tags(data) is None


@pytest.mark.parametrize("program", PROGRAMS)
def test_sidecars_of_programs_keep_every_byte(program: str) -> None:
    """Only text is inserted, and undo removes it again."""
    before = sidecar_of(program)
    after = write_tags(before, TAGS)
    assert keywords_in(after, "lr:hierarchicalSubject")[-1] == "emotion|awe"  # type: ignore[index]
    rest = iter(after)
    assert all(byte in rest for byte in before)
    assert remove_tags(after) == before
    assert write_tags(after, TAGS) == after
    assert (b"\r\n" in after) == (b"\r\n" in before)
    assert after.count(b"\n") - after.count(b"\r\n") in (0, after.count(b"\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A list that programs prefer would hide the keywords in the others.
        ({"dc:subject": ["sea"]}, {"dc:subject": ["sea", "awe"]}),
        (
            {"lr:hierarchicalSubject": ["place|sea"]},
            {"lr:hierarchicalSubject": ["place|sea", "emotion|awe"], "dc:subject": ["awe"]},
        ),
        (
            {"digiKam:TagsList": ["place/sea"]},
            {
                "digiKam:TagsList": ["place/sea", "emotion/awe"],
                "lr:hierarchicalSubject": ["emotion|awe"],
                "dc:subject": ["awe"],
            },
        ),
        # Keywords of the user in another case are the user's.
        ({"dc:subject": ["Awe"]}, {"dc:subject": ["Awe"]}),
        # A list without keywords hides nothing.
        (
            {"dc:subject": []},
            {"digiKam:TagsList": ["emotion/awe"], "lr:hierarchicalSubject": ["emotion|awe"], "dc:subject": ["awe"]},
        ),
    ],
)
def test_no_keyword_of_the_user_is_hidden(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    lists = [
        f"<{name}><rdf:Bag>{''.join(f'<rdf:li>{word}</rdf:li>' for word in words)}</rdf:Bag></{name}>"
        for name, words in before.items()
    ]
    data = document_of("".join(lists))
    written = write_tags(data, TAGS)
    assert {name: keywords_in(written, name) for name in LISTS} == dict.fromkeys(LISTS) | after
    assert remove_tags(written) == data


def test_another_answer_replaces_our_keywords_and_not_the_users() -> None:
    data = document_of(
        "<lr:hierarchicalSubject><rdf:Bag><rdf:li>emotion|awe</rdf:li><rdf:li>emotion|joy</rdf:li></rdf:Bag>"
        "</lr:hierarchicalSubject>"
    )
    first = write_tags(data, TAGS)
    assert keywords_in(first, "lr:hierarchicalSubject") == ["emotion|awe", "emotion|joy"]
    second = write_tags(first, OTHER)
    assert keywords_in(second, "lr:hierarchicalSubject") == ["emotion|awe", "emotion|joy", "emotion|fear"]
    assert keywords_in(second, "dc:subject") == ["fear"]
    assert write_tags(second, TAGS) == first
    assert remove_tags(second) == data


def canonical(data: bytes) -> str:
    """The file without differences of prefixes, quotes and spaces."""
    return ET.canonicalize(data, strip_text=True, rewrite_prefixes=True)


def merged(data: bytes, *, as_elements: bool) -> bytes:
    """The file as another program writes it: one rdf:Description, and other prefixes and spaces."""
    root = ET.fromstring(data)
    rdf = next(root.iter(f"{{{RDF}}}RDF"))
    first, *others = rdf
    for other in others:
        first.attrib |= other.attrib
        first.extend(list(other))
        rdf.remove(other)
    if as_elements:
        about = f"{{{RDF}}}about"
        for name, value in list(first.attrib.items()):
            if name != about:
                ET.SubElement(first, name).text = value
                del first.attrib[name]
    ET.indent(root, "\t")
    return ET.tostring(root, "utf-8")


@pytest.mark.parametrize("as_elements", [False, True])
@pytest.mark.parametrize("program", PROGRAMS)
def test_fields_are_found_after_another_program_has_written_the_file(program: str, as_elements: bool) -> None:
    before = sidecar_of(program)
    rewritten = merged(write_tags(before, TAGS), as_elements=as_elements)
    # The same answer changes nothing.
    assert write_tags(rewritten, TAGS) == rewritten
    again = write_tags(rewritten, OTHER)
    removed = remove_tags(again)
    assert removed is not None
    assert NAMESPACE.encode() not in removed
    assert canonical(removed) == canonical(merged(before, as_elements=as_elements))


MIRRORS = {
    "xmlns:MicrosoftPhoto": "http://ns.microsoft.com/photo/1.0/",
    "xmlns:mediapro": "http://ns.iview-multimedia.com/mediapro/1.0/",
    "xmlns:acdsee": "http://ns.acdsee.com/iptc/1.0/",
    "xmlns:Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
}


def bag_of(name: str, *words: str) -> str:
    return f"<{name}><rdf:Bag>{''.join(f'<rdf:li>{word}</rdf:li>' for word in words)}</rdf:Bag></{name}>"


def category_of(root: str, *words: str) -> str:
    inner = "".join(f'<Category Assigned="1">{word}</Category>' for word in words)
    return f'<Category Assigned="0">{root}{inner}</Category>'


def copied_by_others(data: bytes, *, user: Sequence[str] = ()) -> bytes:
    """What digiKam and darktable make of a sidecar with emotion|awe, and the user's keywords beside it."""
    words = [*user, "awe"]
    tree = category_of("emotion", *words)
    properties = [
        bag_of("MicrosoftPhoto:LastKeywordXMP", *(f"emotion/{word}" for word in words)),
        bag_of("mediapro:CatalogSets", *(f"emotion|{word}" for word in words), "emotion"),
        bag_of("Iptc4xmpExt:PersonInImage", "awe", "emotion"),
    ]
    spaces = " ".join(f'{name}="{uri}"' for name, uri in MIRRORS.items())
    attribute = f"acdsee:categories={quoteattr(f'<Categories>{tree}</Categories>')}"
    description = f'<rdf:Description rdf:about="" {spaces} {attribute}>{"".join(properties)}</rdf:Description>'
    flat = "".join(f"<rdf:li>{word}</rdf:li>" for word in ("emotion", *user))
    paths = "".join(f"<rdf:li>emotion|{word}</rdf:li>" for word in user)
    data = data.replace(b"<rdf:li>awe</rdf:li>", f"{flat}<rdf:li>awe</rdf:li>".encode())
    data = data.replace(b"<rdf:li>emotion|awe</rdf:li>", f"{paths}<rdf:li>emotion|awe</rdf:li>".encode())
    return data.replace(b" </rdf:RDF>", description.encode() + b"</rdf:RDF>")


def words_of(data: bytes) -> set[str]:
    """Return the texts of all lists, but that of people."""
    root = ET.fromstring(data)
    people = {item for each in root.iter(f"{{{MIRRORS['xmlns:Iptc4xmpExt']}}}PersonInImage") for item in each.iter()}
    return {item.text or "" for item in root.iter(f"{{{RDF}}}li") if item not in people}


def test_copies_of_our_keyword_in_lists_of_others_are_removed() -> None:
    copied = copied_by_others(write_tags(None, TAGS))
    left = remove_tags(copied)
    assert left is not None
    assert words_of(left) == set()
    assert b"categories=" not in left
    assert left.count(b"awe") == 1  # the person of this name
    # After another answer, only that one is there.
    again = write_tags(copied, OTHER)
    assert words_of(again) == {"fear", "emotion|fear", "emotion/fear"}


def test_keywords_of_the_user_stay_in_lists_of_others() -> None:
    left = remove_tags(copied_by_others(write_tags(None, TAGS), user=["joy"]))
    assert left is not None
    # Joy needs the level.
    assert words_of(left) == {"joy", "emotion", "emotion|joy", "emotion/joy"}
    assert category_of("emotion", "joy") in unescape(left.decode(), {"&quot;": '"'})
    assert words_of(write_tags(left, OTHER)) == words_of(left) | {"fear", "emotion|fear"}


@pytest.mark.parametrize("words", [["emotion"], ["awe"], ["emotion", "awe"]])
def test_levels_that_the_user_had_stay(words: list[str]) -> None:
    before = document_of(bag_of("dc:subject", *words))
    left = remove_tags(copied_by_others(write_tags(before, TAGS)))
    assert left is not None
    assert words_of(left) == set(words)
    tree = f"<Categories>{category_of('emotion', 'awe')}</Categories>"
    space = f' xmlns:acdsee="{MIRRORS["xmlns:acdsee"]}"'
    had = document_of(f"<acdsee:categories>{escape(tree)}</acdsee:categories>", space)
    assert remove_tags(write_tags(had, TAGS)) == had


INSIDE = Inside({"dc:subject": ["Ann", "sea & sand"], "lr:hierarchicalSubject": ["People|Ann"]})


def test_keywords_inside_the_photograph_are_copied_into_new_lists() -> None:
    """Programs read a list from the sidecar instead of the photograph's."""
    data = write_tags(None, TAGS, lambda: INSIDE)
    assert keywords_in(data, "dc:subject") == ["Ann", "sea & sand", "awe"]
    assert keywords_in(data, "lr:hierarchicalSubject") == ["People|Ann", "emotion|awe"]
    # This list would hide those inside the photograph.
    assert keywords_in(data, "digiKam:TagsList") is None
    assert remove_tags(data) is None
    rewritten = merged(data, as_elements=False)
    assert remove_tags(rewritten) is None
    again = write_tags(rewritten, OTHER, lambda: INSIDE)
    assert keywords_in(again, "dc:subject") == ["Ann", "sea & sand", "fear"]
    # With a keyword of the user, the list stays.
    item = b"<rdf:li>emotion|awe</rdf:li>"
    left = remove_tags(data.replace(item, item + b"<rdf:li>place|sea</rdf:li>"))
    assert left is not None
    assert keywords_in(left, "lr:hierarchicalSubject") == ["People|Ann", "place|sea"]
    assert keywords_in(left, "dc:subject") is None


def test_lists_of_the_sidecar_count_instead_of_those_inside_the_photograph() -> None:
    data = document_of("<dc:subject><rdf:Bag><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>")
    written = write_tags(data, TAGS, lambda: INSIDE)
    assert keywords_in(written, "dc:subject") == ["sea", "awe"]
    assert keywords_in(written, "lr:hierarchicalSubject") == ["People|Ann", "emotion|awe"]
    assert remove_tags(written) == data


def test_our_keyword_inside_the_photograph_is_the_users() -> None:
    data = write_tags(None, TAGS, lambda: Inside({"dc:subject": ["awe"]}))
    assert keywords_in(data, "dc:subject") == ["awe"]
    assert remove_tags(data) is None


def test_a_keyword_that_the_user_deletes_stays_deleted_until_the_answer_changes() -> None:
    written = write_tags(sidecar_of("darktable"), TAGS)
    corrected = written.replace(b"     <rdf:li>emotion|awe</rdf:li>\n", b"").replace(
        b"     <rdf:li>awe</rdf:li>\n", b""
    )
    assert len(corrected) < len(written)
    assert write_tags(corrected, TAGS) == corrected
    assert remove_tags(corrected) == sidecar_of("darktable")


def test_our_file_stays_if_somebody_has_added_a_field() -> None:
    written = write_tags(None, TAGS)
    addition = f'<rdf:Description rdf:about="" xmlns:xmp="{XMP}" xmp:Label="Red"/>'.encode()
    extended = written.replace(b" </rdf:RDF>", addition + b"</rdf:RDF>")
    left = remove_tags(extended)
    assert left is not None
    assert addition in left
    assert NAMESPACE.encode() not in left
    # So it does if the user has added a keyword to a list of ours.
    item = b"<rdf:li>emotion|awe</rdf:li>"
    left = remove_tags(written.replace(item, item + b"<rdf:li>sea</rdf:li>"))
    assert left is not None
    assert keywords_in(left, "lr:hierarchicalSubject") == ["sea"]
    assert keywords_in(left, "dc:subject") is None


def test_a_rating_is_written_unless_there_is_one() -> None:
    rated = replace(TAGS, rating=4)
    new = write_tags(None, rated)
    assert b'xmp:Rating="4"' in new
    assert write_tags(new, rated) == new
    assert b"xmp:Rating" not in write_tags(new, TAGS)
    # Somebody has changed our rating: it is not ours any more.
    changed = new.replace(b'xmp:Rating="4"', b'xmp:Rating="2"')
    assert b'xmp:Rating="2"' in write_tags(changed, replace(rated, keyword="emotion|fear"))
    assert b'xmp:Rating="2"' in (remove_tags(changed) or b"")
    theirs = write_tags(sidecar_of("darktable"), rated)
    assert Record.of(parse(theirs)).fields.get("Rating") is None
    assert theirs.count(b"xmp:Rating") == 1
    assert write_tags(theirs, rated) == theirs


def test_a_rating_inside_the_photograph_stays_visible() -> None:
    rated = replace(TAGS, rating=4)
    data = write_tags(None, rated, lambda: Inside({}, is_rated=True))
    assert b"Rating" not in data
    assert write_tags(data, rated, lambda: Inside({}, is_rated=True)) == data
    # Our own rating is replaced, whatever the photograph has by now.
    ours = write_tags(None, rated)
    assert b'xmp:Rating="2"' in write_tags(ours, replace(rated, rating=2), lambda: Inside({}, is_rated=True))


def test_labels_with_odd_characters_are_escaped() -> None:
    tags = replace(TAGS, keyword="emotion|<Ehr>&\"furcht'\n喜", model="a\x00b\ud800")
    data = write_tags(None, tags)
    assert keywords_in(data, "dc:subject") == ["<Ehr>&\"furcht' 喜"]
    assert write_tags(data, tags) == data
    assert remove_tags(data) is None


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
BAG = "<rdf:Bag><rdf:li>sea</rdf:li></rdf:Bag>"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no XML in UTF-8"),
        (b"garbage", "line 1: no XML"),
        (b"<a>\n<b></a>", "line 2: no XML in UTF-8 .mismatched tag"),
        (b"<a/>", "one element rdf:RDF, found 0"),
        (BOMB.encode() + document_of(""), "DOCTYPE"),
        (b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + document_of(""), "DOCTYPE"),
        (document_of("&undefined;"), "undefined entity"),
        (document_of("").decode().encode("utf-16"), "no XML in UTF-8"),
        (document_of("").decode().encode("utf-16-le"), "null character"),
        (document_of("é").decode().encode("latin-1"), "no XML in UTF-8"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + document_of(""), "its encoding is ISO-8859-1"),
        (document_of("<who:is/>"), "prefix 'who' has no namespace"),
        (document_of("<dc:subject>sea</dc:subject>"), "dc:subject is no list"),
        (document_of("", ' dc:subject="sea"'), "dc:subject is no list"),
        (document_of(f"<dc:subject>{BAG}</dc:subject>" * 2), "dc:subject twice"),
        (document_of("", "".join(f" o{i}=''" for i in range(MAX_PARTS))), "more than 200,000 elements"),
        (document_of("x" * MAX_SIDECAR_BYTES), "more than the 16 MiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_that_can_not_be_changed_safely_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        write_tags(data, TAGS)


def test_deep_files_are_read() -> None:
    depth = 20_000
    data = document_of("<a>" * depth + "</a>" * depth)
    assert remove_tags(write_tags(data, TAGS)) == data


WORDS = ("sea", "awe", "emotion|awe", "emotion/awe", "Strand &amp; Meer", "喜び", "emotion|fear", "")
OTHERS = (
    '<o:bag><rdf:Bag><rdf:li xml:lang="x-default">a &lt; b</rdf:li></rdf:Bag></o:bag>',
    "<o:text>1 > 0</o:text>",
    '<o:struct rdf:parseType="Resource"><o:inner>&#x41;</o:inner></o:struct>',
    "<o:cdata><![CDATA[<rdf:li>awe</rdf:li>]]></o:cdata>",
    "<!-- <dc:subject/> -->",
    "<?other instruction?>",
)
ATTRIBUTES = ('o:a="1"', "o:b = 'it says \"hi\"'", 'o:c="/>"', 'xmp:Rating="3"', "xmp:Label='Red'", 'o:d="&amp;&#10;"')


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Sidecars in all the forms that XMP allows."""
    line = draw(st.sampled_from(["\n", "\r\n", "\r\n\t", "\n  ", "", "\n\n "]))
    prefix = draw(st.sampled_from(["rdf", "RDF", "dc", "uniemox", ""]))
    rdf = f"{prefix}:" if prefix else ""
    declared = f'xmlns{":" if prefix else ""}{prefix}="{RDF}"'

    def named(text: str) -> str:
        # Without a prefix for elements, attributes of RDF need one of their own.
        return text if prefix == "rdf" else text.replace("<rdf:", f"<{rdf}").replace("</rdf:", f"</{rdf}")

    def keyword_list(name: str) -> str:
        container = draw(st.sampled_from(["rdf:Bag", "rdf:Seq"]))
        words = draw(st.lists(st.sampled_from(WORDS), max_size=3, unique=True))
        form = draw(st.sampled_from([f"<{container}/>", f"<{container} />", f"<{container}></{container}>", "", ""]))
        if words or not form:
            space = draw(st.sampled_from(["", line]))
            items = "".join(f"{space}<rdf:li>{word}</rdf:li>" for word in words)
            form = f"<{container}>{items}{space}</{container}>"
        name = name.replace("dc:", "d:")
        return f"<{name}>{form}{line}</{name}>"

    lists = [keyword_list(name) for name in LISTS if draw(st.booleans())]
    properties = draw(st.permutations([*lists, *draw(st.lists(st.sampled_from(OTHERS), max_size=3))]))
    attributes = draw(st.lists(st.sampled_from(ATTRIBUTES), max_size=3, unique=True))
    used_rating = False
    spaces = (
        f'xmlns:rdf="{RDF}" xmlns:o="urn:other#" xmlns:xmp="{XMP}" xmlns:d="{SPACES["dc:subject"]}" '
        f'xmlns:lr="{SPACES["lr:hierarchicalSubject"]}" xmlns:digiKam="{SPACES["digiKam:TagsList"]}"'
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(properties)), max_size=2)))
    descriptions = []
    for first, last in zip([0, *cuts], [*cuts, len(properties)], strict=True):
        about = draw(st.sampled_from(['rdf:about=""', "rdf:about=''", 'rdf:about = "uuid:1"']))
        own = "" if used_rating else " ".join(attributes)
        used_rating = True
        inner = "".join(f"{line}{each}" for each in properties[first:last])
        tag = f"<rdf:Description {about}{line} {spaces} {own}"
        closing = f">{inner}{line}</rdf:Description>" if inner or draw(st.booleans()) else "/>"
        descriptions.append(f"{line}{tag}{closing}")
    body = "".join(descriptions) if draw(st.integers(0, 5)) else ""
    content = f"<{rdf}RDF {declared}>{named(body)}{line}</{rdf}RDF>"
    if not body and draw(st.booleans()):
        content = f"<{rdf}RDF {declared}{draw(st.sampled_from(['', ' ']))}/>"
    if draw(st.booleans()):
        content = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{line}{content}{line}</x:xmpmeta>'
    if draw(st.booleans()):
        content = f'<?xpacket begin="\ufeff" id="W5M0"?>{line}{content}{line}<?xpacket end="w"?>'
    if draw(st.booleans()):
        content = f'<?xml version="1.0" encoding="UTF-8"?>{line}{content}'
    start = draw(st.sampled_from(["", "\ufeff"]))
    return (start + content + draw(st.sampled_from(["", "\n", "\r\n"]))).encode()


def foreign_part(data: bytes) -> str:
    """The canonical form of a file without our fields and keywords, by another parser."""
    root = ET.fromstring(data)
    keywords = {keyword_list.keyword(TAGS.keyword) for keyword_list in LISTS.values()}
    for element in list(root.iter()):
        for name in list(element.attrib):
            if name.startswith(f"{{{NAMESPACE}}}"):
                del element.attrib[name]
        for child in list(element):
            if child.tag == f"{{{RDF}}}li" and child.text in keywords:
                element.remove(child)
    names = {f"{{{space}}}{local}" for space, local in (keyword_list.name for keyword_list in LISTS.values())}
    for description in list(root.iter(f"{{{RDF}}}Description")):
        for child in list(description):
            if child.tag in names and not list(child.iter(f"{{{RDF}}}li")):
                description.remove(child)
    rdf = root if root.tag == f"{{{RDF}}}RDF" else next(root.iter(f"{{{RDF}}}RDF"))
    for description in list(rdf):
        if not list(description) and set(description.attrib) <= {f"{{{RDF}}}about"}:
            rdf.remove(description)
    return canonical(ET.tostring(root))


@given(documents())
@example(document_of("<dc:subject><rdf:Bag/></dc:subject>"))
@example(f'<rdf:RDF xmlns:rdf="{RDF}"/>'.encode())
def test_every_byte_of_others_stays_and_undo_restores_the_file(data: bytes) -> None:
    written = write_tags(data, TAGS)
    assert NAMESPACE.encode() in written
    assert foreign_part(written) == foreign_part(data)
    assert remove_tags(written) == data
    assert write_tags(written, TAGS) == written
    again = write_tags(written, OTHER)
    assert again == write_tags(data, OTHER)
    assert remove_tags(again) == data
    # What was there is still there, in the same order.
    rest = iter(written)
    solidi = data.count(b"/>") - written.count(b"/>")
    assert solidi <= 2 or all(byte in rest for byte in data)


@given(
    documents(),
    st.dictionaries(st.sampled_from(list(LISTS)), st.lists(st.sampled_from(WORDS), min_size=1, unique=True)),
)
def test_copies_of_keywords_are_undone(data: bytes, inside: dict[str, list[str]]) -> None:
    written = write_tags(data, TAGS, lambda: Inside(inside))
    assert remove_tags(written) == data
    assert write_tags(write_tags(written, OTHER, lambda: Inside(inside)), TAGS, lambda: Inside(inside)) == written
    new = write_tags(None, TAGS, lambda: Inside(inside))
    assert remove_tags(new) is None


@given(st.binary(max_size=60) | st.text(max_size=60).map(document_of))
def test_any_bytes_give_an_error_or_come_back(data: bytes) -> None:
    try:
        written = write_tags(data, TAGS)
    except DataError:
        return
    assert remove_tags(written) == data
