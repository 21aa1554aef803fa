"""`uniemox tag`: sidecar files of a folder, their names, guesses, errors and undo."""

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import uniemox
from tests.drawn import draw_image, jpeg_of
from tests.insight.photos import FLAGS_BLANK_ONLY, few_images_model
from tests.insight.test_sidecar import SIDECARS, keywords_in
from tests.raw_files import dng
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError
from uniemox.insight.index_file import INDEX
from uniemox.insight.tag.fields import LISTS
from uniemox.insight.tag.folder import TaggedImage, TagSettings, plan_sidecars, rating_of, tag_folder
from uniemox.insight.tag.inside import read_inside
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

# Drawn images are unlike photographs, so some answers about them are guesses.
ALL = TagSettings(unfamiliar=True)
COUNT = 4


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load("small", finder=None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four drawn images, one of them in a folder inside."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for i in range(COUNT):
        draw_image(i).save(folder / ("inner" if i == 3 else ".") / f"{i}.jpg")
    return folder


def contents_of(folder: Path) -> dict[str, str]:
    """The hash of each file but those of the index."""
    files = [path for path in folder.rglob("*") if path.is_file() and INDEX not in path.parts]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def states_of(results: list[TaggedImage]) -> dict[str, str]:
    return {Path(result.path).name: result.state for result in results}


def test_the_command_tags_and_undoes(photos: Path) -> None:
    before = contents_of(photos)
    (photos / "broken.jpg").write_bytes(b"no image")
    words = ("tag", photos, "--model", "small", "--unfamiliar")
    dry = uniemox_here(*words, "--dry-run")
    assert dry.returncode == 3, dry.stderr
    assert len(dry.stdout.splitlines()) == COUNT
    assert f"{photos}/0.jpg: emotion|" in dry.stdout
    assert f"{photos}/0.jpg.xmp (created)" in dry.stdout
    assert f"new sidecars: {COUNT}" in dry.stderr
    assert not list(photos.rglob("*.xmp"))

    done = uniemox_here(*words)
    assert done.returncode == 3
    assert f"new sidecars: {COUNT}; unreadable images: 1" in done.stderr
    # This call has not tried the broken image again, but names it.
    assert f"{photos}/broken.jpg: could not be read" in done.stderr.replace("\n", "")
    assert sorted(path.name for path in photos.rglob("*.xmp")) == [f"{i}.jpg.xmp" for i in range(COUNT)]
    after = contents_of(photos)
    assert before.items() <= after.items()
    (photos / "broken.jpg").write_bytes(b"still no image")
    assert f"1 of {COUNT + 1} images could not be read" in uniemox_here(*words).stderr
    (photos / "broken.jpg").unlink()
    again = uniemox_here(*words)
    assert again.returncode == 0
    assert f"unchanged: {COUNT}" in again.stderr
    assert contents_of(photos).items() <= after.items()

    undone = uniemox_here("tag", photos, "--undo")
    assert undone.returncode == 0
    assert f"sidecars of ours deleted: {COUNT}" in undone.stderr
    assert contents_of(photos) == before
    assert "no sidecar has fields of uniemox" in uniemox_here("tag", photos, "--undo").stderr


def test_guesses_are_not_tagged_and_lose_earlier_tags(photos: Path, predictor: Predictor) -> None:
    blank = photos / "blank.jpg"
    Image.new("RGB", (300, 200)).save(blank)
    assert predictor.predict(blank).is_unfamiliar
    sidecar = photos / "blank.jpg.xmp"
    assert states_of(list(tag_folder(predictor, photos, TagSettings())))["blank.jpg"] == "guess"
    assert not sidecar.exists()
    assert states_of(list(tag_folder(predictor, photos, ALL)))["blank.jpg"] == "created"
    assert b'uniemox:Unfamiliar="True"' in sidecar.read_bytes()
    results = list(tag_folder(predictor, photos, TagSettings()))
    assert [result.state for result in results if result.path == str(blank)] == ["deleted"]
    assert not sidecar.exists()
    shutil.copy(SIDECARS / "digikam.xmp", sidecar)
    list(tag_folder(predictor, photos, ALL))
    assert states_of(list(tag_folder(predictor, photos, TagSettings())))["blank.jpg"] == "removed"
    assert sidecar.read_bytes() == (SIDECARS / "digikam.xmp").read_bytes()


def test_existing_sidecars_of_both_names_are_used_and_restored(photos: Path, predictor: Predictor) -> None:
    shutil.copy(SIDECARS / "darktable.xmp", photos / "0.jpg.xmp")
    shutil.copy(SIDECARS / "lightroom.xmp", photos / "1.XMP")
    (photos / "1.XMP").chmod(0o640)
    before = contents_of(photos)
    results = list(tag_folder(predictor, photos, ALL))
    assert states_of(results) == {"0.jpg": "changed", "1.jpg": "changed", "2.jpg": "created", "3.jpg": "created"}
    keyword = next(result.keyword for result in results if result.path.endswith("1.jpg"))
    assert keywords_in((photos / "1.XMP").read_bytes(), "lr:hierarchicalSubject") == [
        "Personen|Familie",
        "Orte|Strand & Meer",
        keyword,
    ]
    assert not (photos / "1.jpg.xmp").exists()
    assert (photos / "1.XMP").stat().st_mode & 0o777 == 0o640
    assert Counter(result.state for result in uniemox.untag(photos)) == {"removed": 2, "deleted": 2}
    assert contents_of(photos) == before
    assert (photos / "1.XMP").stat().st_mode & 0o777 == 0o640


def test_another_model_replaces_the_answers(photos: Path, predictor: Predictor) -> None:
    shutil.copy(SIDECARS / "digikam.xmp", photos / "0.jpg.xmp")
    before = contents_of(photos)
    list(tag_folder(predictor, photos, ALL))
    results = list(tag_folder(load(finder=None), photos, ALL))
    assert set(states_of(results).values()) == {"changed"}
    for result in results:
        data = Path(result.sidecar or "").read_bytes()
        assert b'uniemox:Model="embedded"' in data
        ours = [word for word in keywords_in(data, "digiKam:TagsList") or [] if word.startswith("emotion/")]
        assert ours == [result.keyword.replace("|", "/")]
    uniemox.untag(photos)
    assert contents_of(photos) == before


def iptc_of(*keywords: bytes) -> bytes:
    """The segment of a JPEG that has keywords of IPTC."""
    records = b"".join(b"\x1c\x02\x19" + len(word).to_bytes(2, "big") + word for word in keywords)
    resource = b"8BIM\x04\x04\x00\x00" + len(records).to_bytes(4, "big") + records + b"\0" * (len(records) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + (len(content) + 2).to_bytes(2, "big") + content


def save_with_xmp(path: Path, packet: bytes) -> None:
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode())
    tags = {700: packet} if path.suffix == ".tif" else None
    draw_image(1).save(path, xmp=packet, pnginfo=info, tiffinfo=tags)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_keywords_inside_photographs_stay_visible(tmp_path: Path, predictor: Predictor, ending: str) -> None:
    packet = (SIDECARS / "lightroom.xmp").read_bytes()
    photos = tmp_path / "photos"
    photos.mkdir()
    save_with_xmp(photos / f"xmp{ending}", packet)
    save_with_xmp(photos / f"hostile{ending}", b"<!DOCTYPE x [<!ENTITY a 'ha'>]>" + packet)
    assert read_inside(photos / f"hostile{ending}").keywords == {}
    results = list(tag_folder(predictor, photos, ALL))
    assert set(states_of(results).values()) == {"created"}
    keyword = next(result.keyword for result in results if "xmp" in Path(result.path).stem)
    written = (photos / f"xmp{ending}.xmp").read_bytes()
    hierarchical = keywords_in(packet, "lr:hierarchicalSubject") or []
    assert keywords_in(written, "lr:hierarchicalSubject") == [*hierarchical, keyword]
    assert keywords_in(written, "digiKam:TagsList") is None
    assert keywords_in((photos / f"hostile{ending}.xmp").read_bytes(), "digiKam:TagsList") is not None
    uniemox.untag(photos)
    assert not list(photos.glob("*.xmp"))


def test_metadata_inside_a_camera_raw_is_read(tmp_path: Path) -> None:
    """Lightroom writes into the DNG itself, beside the preview that models see."""
    pytest.importorskip("rawpy", reason="needs rawpy: pip install 'uniemox[raw]'")
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag><rdf:li>holiday</rdf:li></rdf:Bag></dc:subject>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    preview = jpeg_of(draw_image(3, (640, 480)))
    (tmp_path / "a.dng").write_bytes(dng(preview, xmp=packet.encode()))
    inside = read_inside(tmp_path / "a.dng")
    assert (inside.keywords, inside.is_rated) == ({"dc:subject": ["holiday"]}, True)
    (tmp_path / "b.dng").write_bytes(dng(preview))
    assert read_inside(tmp_path / "b.dng").keywords == {}


def test_keywords_of_iptc_count_as_flat_keywords(photos: Path, predictor: Predictor) -> None:
    jpeg = (photos / "0.jpg").read_bytes()
    segment = iptc_of(b"Ann", "Zoë".encode(), "Müller".encode("latin-1"))
    (photos / "0.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    assert read_inside(photos / "0.jpg").keywords == {"dc:subject": ["Ann", "Zoë", "Müller"]}
    results = list(tag_folder(predictor, photos, ALL))
    written = (photos / "0.jpg.xmp").read_bytes()
    label = results[0].keyword.rpartition("|")[2]
    assert [keywords_in(written, name) for name in LISTS] == [None, None, ["Ann", "Zoë", "Müller", label]]
    (photos / "1.jpg").write_bytes(jpeg[:2] + iptc_of(b"Ann") + jpeg[2:])
    assert read_inside(photos / "1.jpg").keywords == {"dc:subject": ["Ann"]}
    assert read_inside(photos / "none.jpg").keywords == {}


@pytest.mark.parametrize(("rating", "is_rated"), [("0", False), ("3", True)])
def test_a_rating_inside_a_photograph_is_found(tmp_path: Path, rating: str, is_rated: bool) -> None:
    """Cameras write 0 for photographs without a rating."""
    packet = (SIDECARS / "darktable.xmp").read_bytes().replace(b'xmp:Rating="1"', f'xmp:Rating="{rating}"'.encode())
    save_with_xmp(tmp_path / "a.jpg", packet)
    assert read_inside(tmp_path / "a.jpg").is_rated == is_rated


@pytest.mark.parametrize(("tag", "value"), [(0x4746, 5), (0x4749, 99)])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_stars_of_exif_are_a_rating(ending: str, tag: int, value: int, tmp_path: Path) -> None:
    """RawTherapee and cameras write them; other programs show them."""
    for name, stars in (("rated", value), ("not_rated", 0)):
        exif = Image.Exif()
        exif[tag] = stars
        draw_image(1).save(tmp_path / f"{name}.{ending}", exif=exif)
    assert read_inside(tmp_path / f"rated.{ending}").is_rated
    assert not read_inside(tmp_path / f"not_rated.{ending}").is_rated


@pytest.mark.parametrize("name", ["iptc", "APP13"])
def test_keywords_of_iptc_in_a_png_are_read(name: str, tmp_path: Path) -> None:
    words = (b"Oma", "Müller".encode())
    sets = b"".join(b"\x1c\x02\x19" + len(word).to_bytes(2, "big") + word for word in words)
    block = (b"Photoshop 3.0\0" if name == "APP13" else b"") + sets + b"\x1c\x02\x05\x00\x01x"
    for key, digits in (("a", block.hex()), ("damaged", block.hex()[:-1])):
        texts = PngInfo()
        texts.add_text(f"Raw profile type {name}", f"\n{name}\n{len(block):8}\n{digits}\n", zip=True)
        draw_image(1).save(tmp_path / f"{key}.png", pnginfo=texts)
    assert read_inside(tmp_path / "a.png").keywords == {"dc:subject": ["Oma", "Müller"]}
    assert read_inside(tmp_path / "damaged.png").keywords == {}


WINDOWS_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:MicrosoftPhoto="http://ns.microsoft.com/photo/1.0/">'
    "<MicrosoftPhoto:Rating>75</MicrosoftPhoto:Rating><MicrosoftPhoto:LastKeywordXMP><rdf:Bag><rdf:li>Oma</rdf:li>"
    "</rdf:Bag></MicrosoftPhoto:LastKeywordXMP></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def test_keywords_and_rating_of_windows_count(tmp_path: Path, predictor: Predictor) -> None:
    save_with_xmp(tmp_path / "a.jpg", WINDOWS_PACKET.encode())
    assert read_inside(tmp_path / "a.jpg") == ({"dc:subject": ["Oma"]}, True)
    # A sidecar of Windows' programs has them, too: our rating does not take its place.
    (tmp_path / "b").mkdir()
    draw_image(2).save(tmp_path / "b" / "a.jpg")
    (tmp_path / "b" / "a.jpg.xmp").write_text(WINDOWS_PACKET)
    list(tag_folder(predictor, tmp_path / "b", replace(ALL, rating=True)))
    assert "xmp:Rating" not in (tmp_path / "b" / "a.jpg.xmp").read_text()


@pytest.mark.parametrize("name", ["xmp", "APP1"])
def test_xmp_in_the_texts_of_a_png_is_read(name: str, tmp_path: Path) -> None:
    """ImageMagick stores it so."""
    block = (b"http://ns.adobe.com/xap/1.0/\0" if name == "APP1" else b"") + WINDOWS_PACKET.encode()
    texts = PngInfo()
    texts.add_text(f"Raw profile type {name}", f"\n{name}\n{len(block):8}\n{block.hex()}\n", zip=True)
    draw_image(1).save(tmp_path / "a.png", pnginfo=texts)
    assert read_inside(tmp_path / "a.png") == ({"dc:subject": ["Oma"]}, True)


def test_iptc_in_photoshops_resources_of_a_tiff_is_read(tmp_path: Path) -> None:
    sets = b"\x1c\x02\x19\x00\x03Oma"
    # A resource before it, with a name and an odd size, that looks like a keyword.
    other = b"8BIM\x04\x0b\x02ab\0" + (7).to_bytes(4, "big") + b"\x1c\x02\x19\0\x01xy" + b"\0"
    block = other + b"8BIM\x04\x04\x00\x00" + len(sets).to_bytes(4, "big") + sets
    for name, content in (("a", block), ("cut", block[:14]), ("other", other), ("none", b"")):
        draw_image(1).save(tmp_path / f"{name}.tif", tiffinfo={34377: content})
    assert read_inside(tmp_path / "a.tif").keywords == {"dc:subject": ["Oma"]}
    for name in ("cut", "other", "none"):
        assert read_inside(tmp_path / f"{name}.tif").keywords == {}


def test_long_names_cost_one_answer_each(tmp_path: Path, predictor: Predictor) -> None:
    for length in (100, 251, 255):
        draw_image(length).save(tmp_path / f"{length}{'x' * (length - 7)}.jpg")
    for dry_run in (True, False):
        results = list(tag_folder(predictor, tmp_path, replace(ALL, dry_run=dry_run)))
        assert [result.state for result in results] == ["created", "created", "failed"]
    assert "too long" in results[-1].error
    assert len(list(tmp_path.glob("*.xmp"))) == 2


def plan(folder: Path, images: str, naming: str) -> dict[str, str]:
    """The sidecar of each image by the plan, as names."""
    paths = [str(folder / name) for name in images.split()]
    sidecars = plan_sidecars(paths, naming)  # type: ignore[arg-type]
    return {Path(image).name: sidecar.name for sidecar, group in sidecars.items() for image in group}


@pytest.mark.parametrize(
    ("existing", "images", "naming", "expected"),
    [
        ("", "a.jpg", "photo.jpg.xmp", "a.jpg.xmp"),
        ("", "a.jpg", "photo.xmp", "a.xmp"),
        ("a.xmp", "a.jpg", "photo.jpg.xmp", "a.xmp"),
        ("a.jpg.xmp", "a.jpg", "photo.xmp", "a.jpg.xmp"),
        ("a.xmp a.jpg.xmp", "a.jpg", "photo.jpg.xmp", "a.jpg.xmp"),
        ("a.xmp a.jpg.xmp", "a.jpg", "photo.xmp", "a.xmp"),
        # A sidecar of Lightroom is about the raw file.
        ("a.xmp", "a.jpg a.CR2", "photo.jpg.xmp", "a.jpg.xmp a.xmp"),
        ("", "a.jpg a.cr2", "photo.xmp", "a.xmp a.xmp"),
        # Nobody can tell which image it is about.
        ("a.xmp", "a.jpg a.png", "photo.jpg.xmp", "a.jpg.xmp a.png.xmp"),
        ("", "a.b.jpg", "photo.xmp", "a.b.xmp"),
    ],
)
def test_names_of_sidecars(tmp_path: Path, existing: str, images: str, naming: str, expected: str) -> None:
    for name in existing.split():
        (tmp_path / name).touch()
    assert plan(tmp_path, images, naming) == dict(zip(images.split(), expected.split(), strict=True))


def test_images_that_share_a_sidecar_get_one_answer(photos: Path, predictor: Predictor) -> None:
    """An unreadable raw file leaves the sidecar to its JPEG."""
    draw_image(7).save(photos / "0.png")
    (photos / "1.cr2").write_bytes(b"no raw file")
    results = list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, naming="photo.xmp")))
    states = states_of(results)
    assert (states["0.jpg"], states["0.png"]) == ("created", "shared")
    assert (states["1.cr2"], states["1.jpg"]) == ("unreadable", "created")
    keyword = next(result.keyword for result in results if result.path.endswith("0.jpg"))
    assert keywords_in((photos / "0.xmp").read_bytes(), "lr:hierarchicalSubject") == [keyword]
    again = list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, naming="photo.xmp")))
    assert states_of(again)["0.jpg"] == "unchanged"


def test_a_dry_run_tells_the_states_of_guesses_that_share_a_sidecar(photos: Path, predictor: Predictor) -> None:
    for name in ("blank.jpg", "blank.png"):
        Image.new("RGB", (300, 200)).save(photos / name)
    list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, naming="photo.xmp")))
    settings = TagSettings(naming="photo.xmp")
    planned = states_of(list(tag_folder(predictor, photos, replace(settings, dry_run=True))))
    assert (planned["blank.jpg"], planned["blank.png"]) == ("deleted", "guess")
    assert states_of(list(tag_folder(predictor, photos, settings))) == planned


def test_one_bad_sidecar_costs_one_image(photos: Path, predictor: Predictor, tmp_path: Path) -> None:
    (photos / "0.jpg.xmp").write_bytes(b"<cut")
    shutil.copy(SIDECARS / "immich.xmp", tmp_path / "elsewhere.xmp")
    (photos / "1.jpg.xmp").symlink_to(tmp_path / "elsewhere.xmp")
    (photos / "2.jpg.xmp").mkdir()
    before = contents_of(photos)
    outside = (tmp_path / "elsewhere.xmp").read_bytes()
    results = {Path(result.path).name: result for result in tag_folder(predictor, photos, ALL)}
    assert [results[f"{i}.jpg"].state for i in range(COUNT)] == ["failed", "failed", "failed", "created"]
    assert "0.jpg.xmp: line 1: no XML in UTF-8" in results["0.jpg"].error
    assert "1.jpg.xmp is a link" in results["1.jpg"].error
    assert "2.jpg.xmp: can't be read (Is a directory)" in results["2.jpg"].error
    assert before.items() <= contents_of(photos).items()
    assert (tmp_path / "elsewhere.xmp").read_bytes() == outside
    done = uniemox_here("tag", photos, "--model", "small", "--unfamiliar")
    assert done.returncode == 3
    assert "sidecars that could not be used: 3" in done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes into every folder")
def test_a_read_only_folder_is_reported(photos: Path, predictor: Predictor) -> None:
    (photos / "inner").chmod(0o500)
    results = {Path(result.path).name: result for result in tag_folder(predictor, photos, ALL)}
    (photos / "inner").chmod(0o700)
    assert results["3.jpg"].state == "failed"
    assert "3.jpg.xmp: can't be changed (Permission denied); it was not changed" in results["3.jpg"].error
    assert results["0.jpg"].state == "created"


def test_a_full_disk_leaves_the_former_sidecar(
    photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(SIDECARS / "darktable.xmp", photos / "0.jpg.xmp")
    before = contents_of(photos)

    def fail(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, dry_run=True)))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        results = list(tag_folder(predictor, photos, ALL))
    assert set(states_of(results).values()) == {"failed"}
    assert contents_of(photos) == before


def test_a_stopped_call_continues(photos: Path, predictor: Predictor) -> None:
    results = tag_folder(predictor, photos, ALL)
    next(results)
    del results
    assert Counter(states_of(list(tag_folder(predictor, photos, ALL))).values()) == {
        "unchanged": 1,
        "created": COUNT - 1,
    }


def test_undo_finds_sidecars_whose_image_is_gone(photos: Path, predictor: Predictor) -> None:
    list(tag_folder(predictor, photos, ALL))
    (photos / "0.jpg").unlink()
    (photos / "theirs.xmp").write_bytes(b"garbage")
    (photos / "broken.xmp").write_bytes((photos / "1.jpg.xmp").read_bytes()[:-30])
    states = states_of(uniemox.untag(photos))
    assert states.pop("broken.xmp") == "failed"
    assert states == {f"{i}.jpg.xmp": "deleted" for i in range(COUNT)}
    assert (photos / "theirs.xmp").read_bytes() == b"garbage"


def test_ratings_follow_valence(photos: Path, predictor: Predictor) -> None:
    assert [rating_of(value) for value in (1, 1.99, 2, 4.1, 5, 6.2, 7.99, 8, 9)] == [1, 1, 2, 3, 3, 4, 4, 5, 5]
    list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, rating=True)))
    fields = (photos / "0.jpg.xmp").read_text("utf-8")
    valence = float(fields.split('uniemox:Valence="')[1].split('"')[0])
    assert f'xmp:Rating="{rating_of(valence)}"' in fields


def test_stars_that_we_wrote_stay_without_the_option_and_follow_the_answer(photos: Path, predictor: Predictor) -> None:
    list(tag_folder(predictor, photos, TagSettings(unfamiliar=True, rating=True)))
    before = contents_of(photos)
    assert set(states_of(list(tag_folder(predictor, photos, ALL))).values()) == {"unchanged"}
    assert contents_of(photos) == before
    sidecar = photos / "0.jpg.xmp"
    # An earlier answer with other stars, and a sidecar in which the user has changed them.
    text = sidecar.read_text("utf-8")
    stars = text.split('xmp:Rating="')[1][0]
    other_stars = "1" if stars != "1" else "2"
    sidecar.write_text(text.replace(f'Rating="{stars}"', f'Rating="{other_stars}"'), "utf-8")
    rated = photos / "1.jpg.xmp"
    rated.write_text(re.sub(r'xmp:Rating="\d"', 'xmp:Rating="-1"', rated.read_text("utf-8")), "utf-8")
    list(tag_folder(predictor, photos, ALL))
    assert sidecar.read_text("utf-8").count(f'Rating="{stars}"') == 2
    assert 'xmp:Rating="-1"' in rated.read_text("utf-8")
    # Without an earlier rating of ours, none is added.
    uniemox.untag(photos)
    list(tag_folder(predictor, photos, ALL))
    assert b"Rating" not in sidecar.read_bytes()


def test_a_dry_run_of_undo_tells_kept_files_from_deleted_ones(photos: Path, predictor: Predictor) -> None:
    shutil.copy(SIDECARS / "darktable.xmp", photos / "0.jpg.xmp")
    list(tag_folder(predictor, photos, ALL))
    before = contents_of(photos)
    done = uniemox_here("tag", photos, "--undo", "--dry-run")
    assert f"{photos}/0.jpg.xmp (our fields removed)" in done.stdout.splitlines()
    assert f"{photos}/1.jpg.xmp (file deleted)" in done.stdout.splitlines()
    assert contents_of(photos) == before


def test_mistakes_are_refused(photos: Path, predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match=r"naming must be photo\.jpg\.xmp or photo\.xmp, got 'short'"):
        uniemox.tag(photos, naming="short", predictor=predictor)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="there is no such folder"):
        list(tag_folder(predictor, photos / "none", ALL))
    with pytest.raises(DataError, match="there is no such folder"):
        uniemox.untag(photos / "none")
    assert uniemox_here("tag", photos, photos).returncode == 2
    done = uniemox_here("tag", photos, "--undo", "--rating")
    assert done.returncode == 2
    assert "--undo takes no other option than --dry-run" in done.stderr.replace("\n", " ")
    assert not (photos / INDEX).exists()


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_and_keeps_all_fields(photos: Path, predictor: Predictor) -> None:
    shutil.copy(SIDECARS / "lightroom.xmp", photos / "1.xmp")
    before = (photos / "1.xmp").read_bytes()
    results = {Path(result.path).name: result for result in tag_folder(predictor, photos, ALL)}
    for image, sidecar in (("0.jpg", "0.jpg.xmp"), ("1.jpg", "1.xmp")):
        words = ["exiftool", "-G1", "-a", "-s", "-all", "-validate", str(photos / sidecar)]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        lines = [" ".join(line.split()) for line in text.splitlines()]
        keyword = results[image].keyword
        assert "[ExifTool] Validate : OK" in lines
        assert f"[XMP-uniemox] Keyword : {keyword}" in lines
        assert any(line.startswith("[XMP-lr] HierarchicalSubject :") and line.endswith(keyword) for line in lines)
    # exiftool writes the file again, in its own form.
    rewrite = ["exiftool", "-q", "-overwrite_original", "-XMP-dc:Subject+=holiday", str(photos / "1.xmp")]
    subprocess.run(rewrite, check=True)
    assert states_of(list(tag_folder(predictor, photos, ALL)))["1.jpg"] == "unchanged"
    uniemox.untag(photos)
    after = (photos / "1.xmp").read_bytes()
    assert b"uniemox:" not in after
    assert keywords_in(after, "dc:subject") == [*(keywords_in(before, "dc:subject") or []), "holiday"]


def test_a_model_that_flags_only_blank_images_says_so(photos: Path, tmp_path: Path) -> None:
    done = uniemox_here("tag", photos, "--dry-run", "--model", few_images_model(tmp_path))
    assert FLAGS_BLANK_ONLY in done.stderr
