"""The licence of a folder's images: given with the source, corrected, withdrawn, and shown by a release."""

from pathlib import Path

import pytest
from sqlalchemy import select

from tests.curate.places import LABELS, PLAN, project_of, say
from tests.curate.test_release import rows_of
from tests.data.tree import says
from tests.drawn import class_folders
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox_curate import tables as t
from uniemox_curate.cli.curate import curate
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.sources import address_table, open_source
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import create_project, open_project

REMEDY = "--source 'folder:PATH?licence=CC-BY-4.0&author=NAME'"
OWN_PLAN = CollectionPlan(keywords={"calm": ("lake",), "tense": ("crowd",)}, kind="felt", check_every=0)


def command(*words: object) -> None:
    curate([str(word) for word in words], exit_on_error=False, result_action="return_none")


def test_own_images_are_released_under_the_licence_of_their_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In all splits, although all of them have one author; with labels of one's own, of a kind that names don't say."""
    class_folders(tmp_path / "in", OWN_PLAN.labels, each=6)
    project = tmp_path / "p"
    create_project(project, OWN_PLAN).store.close()
    source = f"folder:{tmp_path / 'in'}"
    licensed = f"{source}?licence=CC-BY-4.0&author=Ada Example"
    command("collect", project, "--source", source)
    assert "licences of images from folders: unknown 12" in capsys.readouterr().err
    command("screen", project, "--min-side", 64)
    opened = open_project(project)
    count = len(opened.rows(select(t.looks)))
    labels = {row.picture_id: row.label for row in opened.rows(select(t.candidates))}
    letters = "".join("a" if labels[i] == "calm" else "f" for i in range(1, count + 1))
    say(opened, {"a": "calm", "f": "tense"}, Ada=letters, Ben=letters)
    command("split", project, "--schemes", 1, "--ratio", "60/20/20")
    assert "no splits.png: it compares the colours of several schemes" in capsys.readouterr().err
    release = ("release", project, tmp_path / "out", "--name", "x")
    with pytest.raises(DataError, match=says("12 of 12 images without a known licence", REMEDY)):
        command(*release, "--licence", "CC-BY-4.0")
    with pytest.raises(DataError, match=says("nothing is left to release", REMEDY)):
        command(*release, "--only-licensed")

    command("collect", project, "--source", licensed)
    assert "licences of images from folders: CC-BY-4.0 12" in capsys.readouterr().err
    command("collect", project, "--source", source)  # without a licence, nothing changes
    command("split", project, "--schemes", 1, "--ratio", "60/20/20")
    command(*release, "--licence", "CC-BY-4.0")
    [following] = [line for line in capsys.readouterr().err.splitlines() if "data show" in line]
    assert following == f"look at it: uniemox data show 'folder:{tmp_path / 'out' / 'pictures'}?kind=felt'"
    assert "| CC-BY-4.0 | 12 | yes | yes | yes |" in (tmp_path / "out" / "licences.md").read_text()
    assert 'license: "cc-by-4.0"' in (tmp_path / "out" / "README.md").read_text()
    sheet = (tmp_path / "out" / "README.md").read_text()
    assert "The makers gave licence and author of 12 images from folders themselves." in sheet
    assert {row["author"] for row in rows_of(tmp_path / "out" / "provenance.csv")} == {"Ada Example"}
    for read_as in (following.split("'")[1], f"csv:{tmp_path / 'out' / 'labels.csv'}?kind=felt"):
        data = open_data(read_as)
        assert (data.labels.labels, data.labels.kind) == (("calm", "tense"), "felt")
        assert {sample.split for sample in data.samples} == {"train", "val", "test"}

    command("collect", project, "--source", f"{source}?licence=unknown")
    with pytest.raises(DataError, match="12 of 12 images without a known licence"):
        command(*release, "--licence", "CC-BY-4.0")
    command("release", project, tmp_path / "new", "--name", "x")
    assert "| unknown | 12 | not known | not known | not known |" in (tmp_path / "new" / "licences.md").read_text()


def test_a_release_of_one_class_is_read_from_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of a single class is not recognised."""
    project = project_of(tmp_path / "p", ["calm"] * 6, OWN_PLAN, looks=True)
    say(project, {"c": "calm"}, Ada="c" * 6, Ben="c" * 6)
    command("split", project.folder, "--schemes", 1, "--ratio", "60/20/20")
    command("release", project.folder, tmp_path / "out", "--name", "x")
    [following] = [line for line in capsys.readouterr().err.splitlines() if "data show" in line]
    table = f"csv:{tmp_path / 'out' / 'labels.csv'}?kind=felt"
    assert following == f"look at it: uniemox data show '{table}'"
    for read_as in (table, table.replace("labels.csv", "soft_labels.csv")):
        data = open_data(read_as)
        assert [data.label_of(sample) for sample in data.samples] == ["calm"] * 6
    text = (tmp_path / "out" / "README.md").read_text()
    assert "reads the data set as `csv:labels.csv?kind=felt`" in text
    assert "folder:" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("licence=CC-BY4.0&author=Ada", "the terms of the licence 'CC-BY4.0' are not known; give CC0-1.0"),
        ("licence=CC-BY-4.0", "CC-BY-4.0 requires credit; say to whom, as in 'folder:PATH"),
        ("licence=CC-BY-4.0&author=Ada & Ben", "write %26 for &, %3F for ?"),
        ("licence=CC-BY-4.0&licence=CC0-1.0&author=Ada", "has the option licence twice; give it once"),
        ("licence=CC-BY-4.0&license=CC0-1.0&author=Ada", "licence is given twice"),
        ("licence=CC0-1.0&year=2026", "the options of a folder are labels=none, licence and author"),
        ("labels=all", "the options of a folder are labels=none, licence and author"),
    ],
)
def test_a_licence_that_would_not_help_is_refused(tmp_path: Path, options: str, message: str) -> None:
    class_folders(tmp_path, LABELS, each=1)
    with pytest.raises(ConfigError, match=says(message)):
        open_source(f"folder:{tmp_path}?{options}", PLAN, CollectConfig())


@pytest.mark.parametrize(
    ("options", "licence"),
    [("license=CC0-1.0", "CC0-1.0"), ("licence=public-domain&labels=none", "public-domain"), ("author=Ada", "")],
)
def test_options_of_a_folder_can_be_combined(tmp_path: Path, options: str, licence: str) -> None:
    class_folders(tmp_path, LABELS, each=1)
    source = open_source(f"folder:{tmp_path}?{options}", PLAN, CollectConfig())
    candidates = list(source.offers(None, "", 9))
    assert {candidate.licence for candidate in candidates} == {licence}
    assert all((candidate.label is None) == ("labels=none" in options) for candidate in candidates)


def test_values_are_percent_decoded_and_folders_may_have_question_marks(tmp_path: Path) -> None:
    folder = tmp_path / "who?a=b & 50%25"
    class_folders(folder, LABELS, each=1)
    source = open_source(f"folder:{folder}?licence=CC-BY-4.0&author=Ada %26 Ben %3F 50%25", PLAN, CollectConfig())
    assert {candidate.author for candidate in source.offers(None, "", 9)} == {"Ada & Ben ? 50%"}
    plain = open_source(f"folder:{folder}", PLAN, CollectConfig())
    assert len(list(plain.offers(None, "", 9))) == len(list(source.offers(None, "", 9))) == 2


def test_a_table_of_local_files_names_the_source_for_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("address,licence\nphotos/1.jpg,CC-BY-4.0\n")
    with pytest.raises(DataError, match=says("t.csv:2", "got 'photos/1.jpg'", REMEDY)):
        address_table(tmp_path / "t.csv", PLAN)


def test_help_says_that_the_pixels_of_a_jpeg_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """As `without_metadata` copies them; in tests/io/test_metadata.py they are compared."""
    with pytest.raises(SystemExit):
        curate(["release", "--help"], exit_on_error=False)
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "All pixels stay the same, also of JPEGs" in text
    assert "change slightly" not in text
    assert "emo8:" not in text
