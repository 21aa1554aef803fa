"""Output to a terminal: names of files and labels without control characters."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.table import Table

from tests.runs import colours, uniemox_here
from uniemox.cli import console
from uniemox.cli.console import SafeConsole, printable, refuse_other, say_notes
from uniemox.cli.progress import ProgressBar
from uniemox.data.sample import NO_PERSONS, Part

HOSTILE = "[red]:smile:\x1b[2J\x1b]0;title\x07\x9b31m\u202egpj.exe"
PRINTABLE = "[red]:smile:�[2J�]0;title��31m�gpj.exe"


def rendered(value: object, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the output to a terminal with colours, without rich's own control sequences."""
    file = io.StringIO()
    terminal = SafeConsole(file=file, force_terminal=True, color_system="truecolor", width=200, **console.PLAIN)
    monkeypatch.setattr(console, "out", terminal)
    console.show_all([value])  # type: ignore[list-item]
    return re.sub(r"\x1b\[[\d;]*m", "", file.getvalue())


def test_table_shows_names_without_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    output = rendered(table, monkeypatch)
    assert len(re.findall(r"\[red\]:smile:.\[2J.\]0;title.{0,2}31m.gpj\.exe", output)) == 3
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(output)


def test_lines_on_both_outputs_are_safe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    console.show_all([HOSTILE])
    file = io.StringIO()
    monkeypatch.setattr(console, "err", SafeConsole(file=file, **console.PLAIN))
    console.say(HOSTILE)
    assert capsys.readouterr().out == f"{PRINTABLE}\n"
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(file.getvalue())
    assert file.getvalue().startswith("[red]:smile:�[2J�]0;title")


def test_bars_are_not_drawn_into_the_pipe_of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks set FORCE_COLOR for the commands in their cells, which are connected by a pipe."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    terminal = SafeConsole(file=file, **console.PLAIN)
    assert terminal.is_terminal
    lines: list[str] = []
    with ProgressBar(terminal, lines.append) as progress:
        for done in range(100):
            progress.show("images", done, 100)
        progress.next_line = 0
        progress.show("images", 50, 100)
    assert file.getvalue() == ""
    assert len(lines) == 1
    assert lines[0].startswith("images: 50/100")


def test_printable_keeps_letters_of_all_scripts() -> None:
    text = "café\tλ 図\nא\udcff"
    assert printable(text) == text


def test_a_network_that_reads_the_person_warns_of_missing_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    data = colours(1)
    searched = replace(data, samples=[replace(data.samples[0], persons=()), *data.samples[1:]])
    say_notes(data)
    say_notes(searched, sees_person=True)
    assert capsys.readouterr().err == ""
    say_notes(data, sees_person=True)
    assert " ".join(capsys.readouterr().err.split()) == NO_PERSONS


def test_notes_of_the_reader_are_printed_and_parts_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Commands that train or score printed only those about files of splits and of images to exclude."""
    part = Part("a", "folder:a", 3, "the same")
    data = replace(colours(1), parts=(part,), notes=(str(part), "2 rows were left out: no image", "classes: a, b"))
    say_notes(data)
    assert capsys.readouterr().err.splitlines() == [str(part), "2 rows were left out: no image", "classes: a, b"]


def test_output_does_not_replace_a_file_of_another_kind(tmp_path: Path) -> None:
    photo = tmp_path / "p.jpg"
    model = tmp_path / "old.onnx"
    photo.write_bytes(b"a photograph")
    model.write_bytes(b"")
    data = f"synthetic:{tmp_path}/none"
    for words in (
        ("calibrate", "--data", data, "--out", photo),
        ("export", "small", "--out", photo),
        ("report", tmp_path, "--out", photo),
        ("data", "split", data, photo),
        ("data", "check", data, "--html", photo),
    ):
        done = uniemox_here(*words)
        assert done.returncode == 1
        assert f"{photo.name} is there already and is no" in " ".join(done.stderr.split())
    assert photo.read_bytes() == b"a photograph"
    refuse_other(model, ".onnx")
    refuse_other(tmp_path / "new", ".onnx")
