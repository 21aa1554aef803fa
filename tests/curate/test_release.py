"""Splits that keep together what belongs together, and a release that reads back, checks out and can shrink."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from tests.curate.places import LABELS, PLAN, project_of, say
from tests.curate.test_agree import plain_alpha
from tests.drawn import draw_image
from tests.images import save
from tests.runs import uniemox_here
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import agree
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.cli.curate import curate
from uniemox_curate.decisions import Change, append, leave_out
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.documents import licence_counts, render
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import kept_data, read_scheme, split
from uniemox_curate.release.takedown import take_down
from uniemox_curate.status import status, write_status_page

COUNT = 20
RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Twenty images, of which Ada and Ben agree on all but the first and the last."""
    project = project_of(tmp_path_factory.mktemp("curate") / "p", [LABELS[i % 2] for i in range(COUNT)], looks=True)
    same = "".join("af"[i % 2] for i in range(COUNT))
    say(project, Ada=same, Ben="f" + same[1:-1] + "n")
    with project.store.write() as connection:
        changes = [Change(i, "style", "cartoon" if i % 3 else "science fiction") for i in range(1, COUNT)]
        append(connection, actor="me", step="by hand", note="", changes=changes)
        together_ids = t.candidates.c.picture_id.in_([3, 5, 7])
        connection.execute(update(t.candidates).where(together_ids).values(author="=cmd()|Jane"))
    return project


@pytest.fixture(scope="module")
def release_folder(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    agree(project)
    split(project, verdicts(project), RATIOS, schemes=4)
    out = tmp_path_factory.mktemp("release") / "out"
    config = ReleaseConfig(name="Tiny", licence="CC0-1.0", address="https://example.org/tiny")
    assert release(project, out, config)["pictures"] == 18
    return out


def agreed(folder: Path, *, is_split: bool = True, **others: str) -> Project:
    """Twelve images on which Ada and Ben agree.  others: answers of more people."""
    project = project_of(folder / "p", [LABELS[i % 2] for i in range(12)], looks=True)
    say(project, **others, Ada="af" * 6, Ben="af" * 6)
    if is_split:
        split(project, verdicts(project), RATIOS, schemes=1)
    return project


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sums_match(folder: Path) -> bool:
    return subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False).returncode == 0


def test_related_images_stay_in_one_split(project: Project, release_folder: Path) -> None:
    data, histograms = kept_data(project, verdicts(project))
    assert len(data) == len(histograms) == 18
    numbers = {row.sha256: row.id for row in project.rows(select(t.images))}
    groups = {numbers[sample.key]: sample.group for sample in data.samples}
    assert groups[3] == groups[5] == groups[7] == "3"
    assert len(set(groups.values())) == 16
    scheme = {numbers[key]: name for key, name in read_scheme(project, 12).items()}
    assert scheme[3] == scheme[5] == scheme[7]
    assert set(scheme) == set(range(2, 20))


def test_shares_that_groups_prevent_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = agreed(tmp_path, is_split=False)
    with project.store.write() as connection:
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id < 11).values(author="Jane"))
    curate(["split", str(project.folder), "--ratio", "60/20/20", "--schemes", "1"], result_action="return_none")
    message = " ".join(capsys.readouterr().err.split())
    reason = "10 images are in 1 group of near duplicates, or of images of one author or page, which are not divided"
    assert f"% of the images instead of 60/20/20 %: {reason}" in message
    assert reason in status(project).sentences["split"]


def test_a_release_is_read_by_our_readers(release_folder: Path) -> None:
    tree = open_data(f"folder:{release_folder / 'pictures'}")
    table = open_data(f"csv:{release_folder / 'labels.csv'}")
    assert len(tree) == len(table) == 18
    assert {f"pictures/{s.key}": (tree.label_of(s), s.split, s.domain) for s in tree.samples} == {
        s.key: (table.label_of(s), s.split, s.domain) for s in table.samples
    }
    assert {sample.domain for sample in tree.samples} == {"cartoon", "science fiction"}
    assert tree.notes == ()
    soft = open_data(f"csv:{release_folder / 'soft_labels.csv'}")
    assert soft.samples[0].distribution == {"awe": 1.0, "fear": 0.0}
    again = open_data(f"folder:{release_folder / 'pictures'}", splits=release_folder / "splits.json")
    assert {s.key: s.split for s in again.samples} == {s.key: s.split for s in tree.samples}


def test_classes_without_an_image_in_a_split_are_named(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"] * 30 + ["fear"] * 2, looks=True)
    say(project, Ada="a" * 30 + "ff", Ben="a" * 30 + "ff")
    for schemes in (1, 3):
        drawn = split(project, verdicts(project), RATIOS, schemes=schemes)
        scheme = read_scheme(project, 12)
        hashes = {row.sha256 for row in project.rows(select(t.images).where(t.images.c.id > 30))}
        empty = {*RATIOS} - {scheme[digest] for digest in hashes}
        assert empty
        assert drawn["lacking"] == {"fear": tuple(name for name in RATIOS if name in empty)}
    done = uniemox_here("curate", "split", tmp_path / "p", "--ratio", "60/20/20", "--schemes", 3)
    assert f"fear has no image in {' and '.join(drawn['lacking']['fear'])}" in " ".join(done.stderr.split())


def test_local_paths_are_relative_and_the_datasheet_names_sources(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    with project.store.write() as connection:
        values = {"source": "folder", "address": f"{tmp_path.as_uri()}/in/awe/1.jpg", "title": "awe/1.jpg"}
        connection.execute(update(t.candidates).where(t.candidates.c.picture_id == 1).values(**values))
        first = dict(connection.execute(select(t.candidates).where(t.candidates.c.id == 2)).mappings().one())
        connection.execute(update(t.candidates).where(t.candidates.c.id == 2).values(licence=""))
        more = {"id": None, "address": "https://licensed.example/", "licence": "by 4.0"}
        connection.execute(t.candidates.insert().values(**{**first, **more}))
    release(project, tmp_path / "out", ReleaseConfig(name="Mine"))
    assert {"awe/1.jpg", "https://licensed.example/"} < {
        row["address"] for row in rows_of(tmp_path / "out" / "provenance.csv")
    }
    assert str(tmp_path) not in (tmp_path / "out" / "provenance.csv").read_text()
    sheet = (tmp_path / "out" / "README.md").read_text()
    assert "1 from folders of files on the makers' machine" in sheet
    assert "was removed;" in sheet


def test_metadata_is_removed_or_kept(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    secret = b"\xff\xfe\x00\x08Secret"
    with project.store.write() as connection:
        for row in project.rows(select(t.images)):
            data = project.image_path(row.sha256, row.format).read_bytes()
            sha256 = project.keep_file(data[:2] + secret + data[2:], row.format)
            connection.execute(update(t.images).where(t.images.c.id == row.id).values(sha256=sha256))
    split(project, verdicts(project), RATIOS, schemes=1)
    out = tmp_path / "out"
    for metadata, is_there in (("remove", False), ("keep", True), ("remove", False)):
        result = release(project, out, ReleaseConfig(name="Mine", metadata=metadata))  # type: ignore[arg-type]
        figures = {"asked": metadata, "encoded again": 0}
        assert result["statistics"]["metadata"] == figures
        files = list((out / "pictures").rglob("*.jpg"))
        assert len(files) == 12
        assert all((b"Secret" in path.read_bytes()) == is_there for path in files)
        assert sums_match(out)
        sheet = (out / "README.md").read_text()
        assert ("is unchanged" in sheet) == is_there
        assert "images were converted" not in sheet


def test_an_image_whose_metadata_cannot_be_removed_is_refused_with_the_remedy(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    [row] = project.rows(select(t.images).where(t.images.c.id == 4))
    cut_off = project.image_path(row.sha256, row.format).read_bytes()[:-500]
    with project.store.write() as connection:
        values = {"sha256": project.keep_file(cut_off, row.format)}
        connection.execute(update(t.images).where(t.images.c.id == 4).values(values))
    split(project, verdicts(project), RATIOS, schemes=1)
    with pytest.raises(DataError, match=r"cut off.* drop the image on the page /screen, or give --metadata keep"):
        release(project, tmp_path / "out", ReleaseConfig(name="x"))
    assert release(project, tmp_path / "out", ReleaseConfig(name="x", metadata="keep"))["pictures"] == 12


def test_formats_that_cannot_be_written_without_loss_are_released_as_png(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    with project.store.write() as connection:
        for number, image_format in ((3, "AVIF"), (4, "WEBP"), (5, "GIF")):
            data = save(draw_image(number, (160, 140)), image_format)
            values = {"sha256": project.keep_file(data, image_format), "format": image_format}
            connection.execute(update(t.images).where(t.images.c.id == number).values(values))
    split(project, verdicts(project), RATIOS, schemes=1)
    for metadata, endings in (
        ("remove", {".jpg", ".png", ".webp", ".gif"}),
        ("keep", {".jpg", ".avif", ".webp", ".gif"}),
    ):
        result = release(project, tmp_path / "out", ReleaseConfig(name="x", metadata=metadata))  # type: ignore[arg-type]
        files = [path for path in (tmp_path / "out" / "pictures").rglob("*.*") if path.suffix != ".jsonl"]
        assert {path.suffix for path in files} == endings
        assert result["statistics"]["metadata"]["encoded again"] == (1 if metadata == "remove" else 0)
        assert len(open_data(f"emo8:{tmp_path / 'out' / 'pictures'}")) == 12


def test_checksums_of_a_release_are_those_of_its_files(release_folder: Path) -> None:
    assert sums_match(release_folder)
    listed = {line.split("  ", 1)[1] for line in (release_folder / "SHA256SUMS").read_text().splitlines()}
    there = {path.relative_to(release_folder).as_posix() for path in release_folder.rglob("*") if path.is_file()}
    assert there - listed == {"SHA256SUMS", ".uniemox-release"}


def test_tables_hold_no_names_and_no_formulas(release_folder: Path) -> None:
    rows = rows_of(release_folder / "provenance.csv")
    assert len(rows) == 18
    assert {row["licence"] for row in rows} == {"by 2.0"}
    assert {row["author"] for row in rows} == {"", "'=cmd()|Jane"}
    assert rows[0]["address"].startswith("https://pictures.example/")
    assert rows[0]["fetched"] == ""
    answers = rows_of(release_folder / "answers.csv")
    assert len(answers) == 36
    assert {row["annotator"] for row in answers} == {"annotator 1", "annotator 2"}
    everything = "".join(
        path.read_text() for path in release_folder.iterdir() if path.suffix in (".md", ".json", ".csv")
    )
    assert "Ada" not in everything
    assert "| by 2.0 | 18 | yes | yes | yes |" in (release_folder / "licences.md").read_text()


def test_anybody_can_compute_the_agreement_of_a_release(release_folder: Path) -> None:
    """From the answers to all images, also to the two that were not kept."""
    rows = rows_of(release_folder / "answers_all.csv")
    images = sorted({row["image"] for row in rows})
    assert len(images) == 20
    assert len(rows) == 40
    assert rows[0].keys() == {"image", "annotator", "label"}
    answers = {(row["image"], row["annotator"]): row["label"] for row in rows}
    people = sorted({row["annotator"] for row in rows})
    labels = sorted({row["label"] for row in rows})
    codes = [[labels.index(answers[image, name]) for image in images] for name in people]
    agreement = json.loads((release_folder / "agreement.json").read_text())
    assert agreement["alpha"]["value"] == pytest.approx(plain_alpha(codes))
    assert agreement["percent"]["value"] == pytest.approx(np.mean([a == b for a, b in zip(*codes, strict=True)]))
    assert agreement["alpha"]["value"] < 1  # of the released images alone it would be
    sheet = (release_folder / "README.md").read_text()
    assert "`answers_all.csv` has all answers that count, without the images" in sheet
    assert "answers_all.csv" in (release_folder / "SHA256SUMS").read_text()


def test_statistics_and_datasheet(release_folder: Path) -> None:
    figures = json.loads((release_folder / "statistics.json").read_text())
    assert figures["table II"]["samples"] == 18
    assert figures["table II"]["styles"] == ["cartoon", "science fiction"]
    assert sum(sum(row.values()) for row in figures["classes"].values()) == 18
    assert figures["funnel"]["passed the screen"] == 20
    assert "| **Tiny** | 18 | 2 | cartoon, science fiction |" in (release_folder / "statistics.md").read_text()
    assert "| Emo8 | 8,930 | Mikels (8) |" in (release_folder / "statistics.md").read_text()
    sheet = (release_folder / "README.md").read_text()
    for part in ("## Motivation", "agreement was 90.0 %", "Labels and texts: CC0-1.0", "Krippendorff's α"):
        assert part in sheet, part
    assert figures["attention checks"] == {"asked": 0, "passed": 0}
    assert "No attention check was answered." in sheet


def test_a_licence_is_plain_text_in_markdown() -> None:
    text = render("licences.md", licences=licence_counts(["a|b <i>`c`\n# [d](javascript:e) \\"]))
    assert r"| a\|b \<i>\`c\` # \[d](javascript:e) \\ | 1 |" in text


def test_label_studio_tasks_have_labels_and_files(release_folder: Path) -> None:
    tasks = json.loads((release_folder / "label_studio.json").read_text())
    assert len(tasks) == 18
    assert tasks[0]["annotations"][0]["result"][0]["value"]["choices"][0] in LABELS
    path = tasks[0]["data"]["image"].partition("?d=")[2]
    assert (release_folder / path).is_file()


def test_the_status_page_is_self_contained(project: Project, release_folder: Path, tmp_path: Path) -> None:
    write_status_page(tmp_path / "s.html", status(project), agree(project), project.folder / "splits.png")
    text = (tmp_path / "s.html").read_text()
    assert "Krippendorff" in text
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_licence_is_refused_for_images_of_unknown_licence(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    with project.store.write() as connection:
        of = t.candidates.c.picture_id
        connection.execute(update(t.candidates).where(of.in_([2, 5])).values(licence=""))
        connection.execute(update(t.candidates).where(of == 7).values(licence="ask the author"))
    out = tmp_path / "out"
    with pytest.raises(DataError, match="3 of 12 images without a known licence") as refused:
        release(project, out, ReleaseConfig(name="x", licence="CC-BY-4.0"))
    for number in (2, 5, 7):
        assert f"https://pictures.example/{number}.jpg" in str(refused.value)
    assert "pictures.example/3.jpg" not in str(refused.value)
    assert "--only-licensed" in str(refused.value)
    assert not out.exists()
    done = release(project, out, ReleaseConfig(name="x", licence="CC-BY-4.0", only_licensed=True))
    assert (done["pictures"], done["unlicensed"]) == (9, 3)
    assert {row["licence"] for row in rows_of(out / "provenance.csv")} == {"by 2.0"}
    assert ": 0 without a known licence" in (out / "licences.md").read_text()
    # The folder keeps its licence, so that images without one are still refused.
    with pytest.raises(DataError, match="release into a new folder"):
        release(project, out, ReleaseConfig(name="x"))
    # Without a licence, nothing is promised.
    assert release(project, tmp_path / "new", ReleaseConfig(name="x"))["pictures"] == 12
    with project.store.write() as connection:
        connection.execute(update(t.candidates).values(licence=""))
    with pytest.raises(DataError, match="none of 12 images has a known licence"):
        release(project, out, ReleaseConfig(name="x", only_licensed=True))


def test_a_repeated_release_keeps_licence_address_and_citation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = agreed(tmp_path)
    out = tmp_path / "out"
    texts = {"licence": "CC-BY-4.0", "address": "https://example.org/x", "citation": "Example et al."}
    first = release(project, out, ReleaseConfig(name="x", **texts))
    assert first["kept texts"] == {}
    words = ["release", str(project.folder), str(out), "--name", "x"]
    curate([*words, "--citation", "Others"], exit_on_error=False, result_action="return_none")
    lines = capsys.readouterr().err.splitlines()
    assert "licence of the previous release kept: CC-BY-4.0" in lines
    assert "address of the previous release kept: https://example.org/x" in lines
    readme = (out / "README.md").read_text()
    assert "Labels and texts: CC-BY-4.0." in readme
    assert "Others" in readme
    croissant = json.loads((out / "croissant.json").read_text())
    assert croissant["url"] == "https://example.org/x"
    assert "CC-BY-4.0" in croissant["license"]
    # A takedown writes the same texts.
    take_down(project, first_hash(project), because="x")
    assert "Labels and texts: CC-BY-4.0." in (out / "README.md").read_text()
    release(project, out, ReleaseConfig(name="x", licence="CC-BY-2.0"))
    assert "Labels and texts: CC-BY-2.0." in (out / "README.md").read_text()
    # A folder that was deleted begins without them.
    shutil.rmtree(out)
    assert release(project, out, ReleaseConfig(name="x"))["kept texts"] == {}
    assert "No licence is given" in (out / "README.md").read_text()


def first_hash(project: Project) -> str:
    return project.rows(select(t.images.c.sha256))[0].sha256


def named_in(folder: Path, gone: str) -> list[str]:
    """Files of a release that tell of an image or hold it."""
    return [
        path.name
        for path in folder.rglob("*")
        if path.is_file() and (gone[:20] in path.name or gone[:20].encode() in path.read_bytes())
    ]


def test_a_release_names_an_image_that_is_damaged_or_cannot_be_read(tmp_path: Path) -> None:
    project = agreed(tmp_path)
    row = project.rows(select(t.images).where(t.images.c.id == 4))[0]
    image = project.image_path(row.sha256, row.format)
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"{image.name}: .*damaged; delete it, then repeat uniemox curate collect"):
        release(project, tmp_path / "a", ReleaseConfig(name="a"))
    image.unlink()
    with pytest.raises(DataError, match=rf"{image.name}: .*\(No such file .*; if it is missing, repeat uniemox curate"):
        release(project, tmp_path / "a", ReleaseConfig(name="a"))


def test_the_datasheet_says_which_answers_do_not_count(tmp_path: Path) -> None:
    """Without those who disagree, the agreement is higher."""
    project = agreed(tmp_path, Cyd="f" * 12, Dan="sa")
    with project.store.write() as connection:
        for name in ("Cyd", "Dan"):
            leave_out(connection, name, actor="owner")
        append(connection, actor="me", step="page", note="", changes=[Change(12, "screen", "drop", "blurred")])
    split(project, verdicts(project), RATIOS, schemes=1)
    release(project, tmp_path / "out", ReleaseConfig(name="Tiny"))
    datasheet = " ".join((tmp_path / "out" / "README.md").read_text("utf-8").split())
    assert (
        "The makers left out 2 annotators with 13 answers, which neither the agreement nor a file counts." in datasheet
    )
    assert "Nor do they count 2 answers to images that were removed." in datasheet
    assert len(rows_of(tmp_path / "out" / "answers_all.csv")) == 22


def test_a_takedown_writes_a_release_of_an_older_version_again(tmp_path: Path) -> None:
    """Its record does not say which answers do not count."""
    project = agreed(tmp_path)
    release(project, tmp_path / "out", ReleaseConfig(name="Tiny"))
    [row] = project.rows(select(t.release_records))
    content = json.loads(row.content)
    del content["figures"]["not counted"]
    with project.store.write() as connection:
        connection.execute(update(t.release_records).values(content=json.dumps(content)))
    assert not take_down(project, "https://pictures.example/1.jpg", because="asked").problems
    assert len(rows_of(tmp_path / "out" / "labels.csv")) == 11
    assert "do they count" not in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_a_release_holds_the_current_agreement(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False, Zoe="fa" * 6)
    agree(project)
    assert "before the last" not in status(project).sentences["agree"]
    with project.store.write() as connection:
        leave_out(connection, "Zoe", actor="me")
    assert "on 12 images, before the last 1 step;" in status(project).sentences["agree"]
    split(project, verdicts(project), RATIOS, schemes=1)
    release(project, tmp_path / "out", ReleaseConfig(name="x"))
    agreement = json.loads((tmp_path / "out" / "agreement.json").read_text())
    assert agreement["percent"]["value"] == 1.0
    assert list(agreement["per_annotator"]) == ["annotator 1", "annotator 2"]
    assert {row["annotator"] for row in rows_of(tmp_path / "out" / "answers.csv")} == set(agreement["per_annotator"])
    assert "agreement was 100.0 %" in (tmp_path / "out" / "README.md").read_text()
    with project.store.write() as connection:
        changes = [Change(i, "verdict", LABELS[1 - i % 2]) for i in range(1, 13)]
        append(connection, actor="me", step="by hand", note="", changes=changes)
        leave_out(connection, "Ben", actor="me")
    release(project, tmp_path / "out", ReleaseConfig(name="x"))  # no image has two answers now
    assert (tmp_path / "out" / "agreement.json").read_text() == "null\n"


def test_unreadable_images_are_in_no_split(tmp_path: Path) -> None:
    project = agreed(tmp_path, is_split=False)
    with project.store.write() as connection:
        broken = update(t.looks).where(t.looks.c.picture_id == 3)
        connection.execute(broken.values(problem="cut off", histogram=None, thumb=None))
        append(connection, actor="me", step="by hand", note="", changes=[Change(3, "screen", "keep", "by hand")])
    data, histograms = kept_data(project, verdicts(project))
    assert len(data) == len(histograms) == 11


def test_errors_of_release_and_split(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", LABELS, looks=True)
    with pytest.raises(DataError, match="no image has two answers"):
        agree(project)
    with pytest.raises(DataError, match="no image is kept"):
        split(project, verdicts(project), RATIOS)
    with pytest.raises(DataError, match="curate split"):
        release(agreed(tmp_path / "q", is_split=False), tmp_path / "out", ReleaseConfig(name="x"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="has other files"):
        release(project, tmp_path / "full", ReleaseConfig(name="x"))
    with pytest.raises(ConfigError):
        ReleaseConfig(name=" ")
    with pytest.raises(ConfigError, match="schemes"):
        split(project, {}, RATIOS, schemes=0)
    assert PLAN.labels == LABELS
