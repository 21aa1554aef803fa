"""The commands, one after the other, as a user types them."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select, update

from tests.curate.places import project_of, say
from tests.drawn import class_folders
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox_curate import tables as t
from uniemox_curate.annotate.serving import DEFAULT_ADDRESS, record_address, served_at
from uniemox_curate.cli.curate import curate
from uniemox_curate.collect.fetch import FetchError
from uniemox_curate.plan import paper_plan
from uniemox_curate.project import create_project, open_project


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints on standard output."""
    curate([str(argument) for argument in arguments], exit_on_error=False, result_action="return_none")
    return capsys.readouterr().out


def test_demo_runs_all_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    result = json.loads(run(capsys, "demo", folder, "--count", 64, "--json"))
    funnel = result["statistics"]["funnel"]
    assert (funnel["offered by the sources"], funnel["different pictures"], funnel["passed the screen"]) == (70, 67, 64)
    assert 40 <= funnel["released"] == result["pictures"] < 64
    assert "Krippendorff" in (folder / "status.html").read_text()
    assert len(open_data(f"emo8:{folder / 'release' / 'pictures'}")) == result["pictures"]
    assert len(open_data(f"csv:{folder / 'release' / 'labels.csv'}")) == result["pictures"]
    sheet = (folder / "release" / "README.md").read_text()
    assert f" {2 * result['pictures']} answers were simulated by a program, not given by a person." in sheet
    assert "random order" not in sheet
    project = folder / "project"
    figures = json.loads(run(capsys, "agree", project, "--rule", "soft", "--json"))
    assert 0.6 < figures["alpha"]["low"] < figures["alpha"]["value"] < 1
    assert sum(figures["kept"].values()) > funnel["released"]
    figures = json.loads(run(capsys, "agree", project, "--json"))
    assert figures["rule"] == "both"  # to have looked at another rule changed nothing
    assert sum(figures["kept"].values()) == funnel["released"]
    assert "Krippendorff's α" in run(capsys, "agree", project, "--rule", "both")
    state = json.loads(run(capsys, "status", project, "--json"))
    assert state["told"]["screen"].startswith(
        "67 looked at, 64 kept; dropped: near duplicate 2, too small 1; styles: none"
    )
    disputed = state["steps"]["agree"]["disputed"]
    assert 0 < disputed <= 64 - funnel["released"]
    open_images = (
        f"{disputed} images without agreement by the rule both could be judged (uniemox curate serve {project})"
    )
    assert state["next"] == f"nothing must be done; {open_images}"
    assert [person["name"] for person in state["people"]] == ["Ada", "Ben"]
    assert "Ada" in run(capsys, "status", project, "--html", tmp_path / "s.html")
    sizes = json.loads(run(capsys, "split", project, "--ratio", "50/50", "--schemes", 2, "--json"))["sizes"]
    assert sum(sizes.values()) == funnel["released"]
    with pytest.raises(ConfigError, match="holds a project already"):
        run(capsys, "demo", folder)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("folder:nowhere", "no such folder"),
        ("csv:nowhere.csv", "nowhere.csv"),
        ("flickr", "is not a source; there are"),
        ("folder:in", "none of the labels"),
        (None, "holds no project; begin one"),
    ],
)
def test_an_invalid_source_creates_no_project(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    source: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "in", ("awe", "holiday"), each=2)
    with pytest.raises(UniemoxError, match=message):
        run(capsys, "collect", "p", *(() if source is None else ("--source", source)))
    assert not (tmp_path / "p").exists()
    if source == "folder:in":
        counts = json.loads(run(capsys, "collect", "p", "--source", "folder:in?labels=none", "--json"))
        assert counts["fetched"] == 4


def test_hints_quote_folders_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my set"
    curate(["init", str(folder)], exit_on_error=False, result_action="return_none")
    assert f"next: uniemox curate collect '{folder}' --source" in capsys.readouterr().err
    curate(["screen", str(folder)], exit_on_error=False, result_action="return_none")
    assert f"next: uniemox curate collect '{folder}' --source" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_the_hint_about_folders_is_printed_for_their_images_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """An image of another source waits after a temporary failure."""
    project = project_of(tmp_path / "p", ["awe"])
    with project.store.write() as connection:
        connection.execute(update(t.candidates).values(source=source, state="waiting", address="file:///gone.jpg"))
    broken = FetchError("HTTP 503", may_pass=True)
    monkeypatch.setattr("uniemox_curate.collect.run.fetch_all", lambda jobs, *_: ((job, broken) for job in jobs))
    curate(["collect", str(tmp_path / "p")], exit_on_error=False, result_action="return_none")
    printed = capsys.readouterr()
    assert "waiting 1" in printed.out
    assert ("--source folder:PATH" in printed.err) == (source == "folder")


def test_collect_tries_a_repaired_file_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "in", ("awe",), each=2)
    content = (tmp_path / "in" / "awe" / "0.jpg").read_bytes()
    (tmp_path / "in" / "awe" / "0.jpg").write_bytes(b"<html>")
    collect = ("collect", tmp_path / "p", "--json", "--source", f"folder:{tmp_path / 'in'}")
    assert json.loads(run(capsys, *collect))["failed"] == 1
    (tmp_path / "in" / "awe" / "0.jpg").write_bytes(content)
    assert json.loads(run(capsys, *collect))["fetched"] == 0
    assert json.loads(run(capsys, *collect, "--retry"))["fetched"] == 1


@pytest.mark.portable
def test_commands_from_a_folder_to_a_takedown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "in", ("awe", "fear"), each=2)
    folder = tmp_path / "p"
    assert "8 labels, 80 search words" in run(capsys, "init", folder)
    counts = json.loads(run(capsys, "collect", folder, "--source", f"folder:{tmp_path / 'in'}", "--json"))
    assert counts == {"fetched": 4, "failed": 0, "waiting": 0, "problems": []}
    assert json.loads(run(capsys, "screen", folder, "--min-side", "64", "--json")) == {"kept": 4}
    assert json.loads(run(capsys, "screen", folder, "--against", f"folder:{tmp_path / 'in'}", "--json")) == {
        "in a benchmark": 4
    }
    assert run(capsys, "undo", folder, "2") == f"undone; to reverse this: uniemox curate undo {folder} 3\n"
    assert json.loads(run(capsys, "status", folder, "--json"))["steps"]["screen"]["kept"] == 4
    assert json.loads(run(capsys, "screen", folder, "--json")) == {"in a benchmark": 4}
    assert json.loads(run(capsys, "screen", folder, "--empty-against", "--json")) == {"kept": 4}
    assert run(capsys, "invite", folder, "Ada", "--address", "https://x.example/").startswith("https://x.example/join#")
    record_address(open_project(folder), "http://127.0.0.1:9123")  # as the server does
    curate(["invite", str(folder), "Ada"], exit_on_error=False, result_action="return_none")
    printed = capsys.readouterr()
    assert printed.out.startswith("http://127.0.0.1:9123/join#")
    assert "Ada was invited before: the old link" in printed.err
    sha256 = next((folder / "pictures").rglob("*.jpg")).stem
    assert run(capsys, "takedown", folder, sha256, "--because", "asked") == f"removed 1 image: {sha256[:12]}\n"


def test_markup_in_names_and_notes_is_printed_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("Ada [/b]", "[red]Ben", "Cem :smile:")
    project = project_of(tmp_path / "[p]", ["awe", "fear"])
    say(project, **dict.fromkeys(names, "af"))
    sha256 = next((tmp_path / "[p]" / "pictures").rglob("*.jpg")).stem
    run(capsys, "takedown", tmp_path / "[p]", sha256, "--because", "[/i]")
    output = run(capsys, "status", tmp_path / "[p]") + run(capsys, "agree", tmp_path / "[p]")
    for words in (*names, "project [p]", "[/i]"):
        assert words in output, words


def test_a_takedown_reports_releases_it_could_not_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear"] * 6, looks=True)
    say(project, Ada="af" * 6, Ben="af" * 6)
    run(capsys, "split", tmp_path / "p", "--schemes", 1, "--ratio", "50/50")
    for name in ("a", "b"):
        run(capsys, "release", tmp_path / "p", tmp_path / name, "--name", name)
    (tmp_path / "a").rename(tmp_path / "c")
    (tmp_path / "b" / "README.md").unlink()
    (tmp_path / "b" / "README.md").mkdir()
    sha256 = project.rows(select(t.images.c.sha256))[0].sha256
    with pytest.raises(DataError, match="b: it can't be written again without the images"):
        curate(["takedown", str(tmp_path / "p"), sha256, "--because", "x"], exit_on_error=False)
    printed = capsys.readouterr()
    assert sha256[:12] in printed.out
    assert "no longer exists" in printed.err


def test_an_address_that_nobody_can_open_is_not_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create_project(tmp_path / "p", paper_plan())
    with pytest.raises(ConfigError, match="needs --address"):
        curate(["serve", str(tmp_path / "p"), "--host", "0.0.0.0", "--port", "0"], exit_on_error=False)
    assert capsys.readouterr().out == ""
    assert served_at(open_project(tmp_path / "p")) == DEFAULT_ADDRESS


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("collect", "P", "--source", "flickr"), ConfigError, "'flickr' is not a source"),
        (("collect", "P", "--per-keyword", "0"), ConfigError, "per_keyword must be at least 1"),
        (("screen", "P", "--min-score", "0.5"), ConfigError, "--model"),
        (("invite", "P", "owner"), ConfigError, "owner is reserved for whoever serves"),
        (("undo", "P", "99"), DataError, "no batch 99"),
        (("undo", "P", str(2**63)), DataError, "no batch"),
        (("agree", "P"), DataError, "no image has two answers"),
        (("release", "P", "OUT", "--name", "x"), DataError, "no image is kept"),
        (("status", "NOWHERE"), DataError, "holds no project"),
        (("demo", "NEW", "--count", "8"), ConfigError, "--count must be at least 64"),
        (("demo", "USED"), ConfigError, r"addresses\.csv exists; give the demo a new folder"),
        (("init", "NEW", "--database", ""), ConfigError, "address of the database"),
        (("init", "NEW", "--database", "sqlite:///"), ConfigError, "names no file"),
        (("status", "P", "--html", "P/project.db"), ConfigError, r"the page is a \.html file"),
        (("export", "P", "P/splits.json"), ConfigError, r"splits\.json: give answers\.csv"),
    ],
)
def test_errors_are_one_sentence(
    tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], message: str
) -> None:
    project_of(tmp_path / "P", ["awe"])
    assert open_project(tmp_path / "P").plan.labels == ("awe", "fear")
    (tmp_path / "USED").mkdir()
    (tmp_path / "USED" / "addresses.csv").touch()
    words = [str(tmp_path / word) if word.partition("/")[0].isupper() else word for word in arguments]
    with pytest.raises(error, match=message):
        curate(words, exit_on_error=False, result_action="return_none")
