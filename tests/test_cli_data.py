"""The commands about data, on drawn images."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.drawn import class_folders, draw_image, jpeg_of
from tests.persons.graphs import write_constant
from tests.runs import uniemox_here as uniemox

ROWS = "path,label,text,split\na.jpg,awe,A lake.,train\nb.jpg,fear,,test\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return class_folders(tmp_path / "data", each=10)


def lines_of(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_show_as_json_prints_one_object_per_sample(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg_of(draw_image(ord(name))))
    (tmp_path / "table.csv").write_text(ROWS)
    (tmp_path / "persons.jsonl").write_text('{"detector": "x"}\n{"key": "b.jpg", "boxes": [[1, 2, 30, 40, 0.5]]}\n')
    done = uniemox("data", "show", f"csv:{tmp_path}/table.csv?labels=mikels", "--json")
    first, second = lines_of(done.stdout)
    assert first == {
        **{"path": f"{tmp_path}/a.jpg", "key": "a.jpg", "label": "awe", "kind": "evoked", "split": "train"},
        **{"text": "A lake.", "distribution": None, "valence": None, "arousal": None, "boxes": None},
        **{"confidences": None, "target_box": None, "domain": None, "group": None},
    }
    assert (second["boxes"], second["confidences"], second["split"]) == ([[1, 2, 30, 40]], [0.5], "test")
    assert f"people of 1 image from {tmp_path}/persons.jsonl (x)" in done.stderr


def test_show_prints_a_summary_and_samples(root: Path) -> None:
    done = uniemox("data", "show", f"folder:{root}", "--limit", 1)
    assert f"folder:{root}: 20 samples, custom (evoked)" in done.stdout.replace("\n", "")
    assert f"{root}/awe/0.jpg  awe" in done.stdout.replace("\n", "")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nothing:x"), "'nothing:x' is not a data set; write KIND:PATH, with one of emoset"),
        (("show", "fi:nowhere"), "nowhere: there is no such folder"),
        (("show", "synthetic:many"), "expected a whole number, as in synthetic:1000, got 'many'"),
        (("show", "emotion6:x?label=sum"), "emotion6?label must be one of folder, vote, got 'sum'"),
        (("show", "fi:x?label=vote"), "fi has no option 'label'; it has none"),
        (("split", "synthetic:64", "s.json", "--ratio", "80/20/x"), "expected shares of train, val"),
        (("split", "synthetic:64", "s.json", "--paper"), "the paper does not split synthetic"),
        (("split", "synthetic:64", "s.json", "--plot", "p.png"), "--plot shows the choice among schemes"),
        (("split", "synthetic:64", "s.json", "--schemes=2", "--plot=p.x"), "--plot can't write p.x; use .png"),
        (("persons", "synthetic:4", "--detector", "x.onnx"), "synthetic:4: no file can be stored next to"),
        (("describe", "synthetic:4", "--teacher", "ViT-B-16"), "--teacher chooses among EmoSet's words"),
        (("describe", "synthetic:4", "--teacher-weights", "openai"), "--teacher-weights needs --teacher"),
        (("describe", "synthetic:4", "--classifier-weights", "x.pth"), "--classifier-weights needs --classifier"),
    ],
)
def test_wrong_input_is_a_one_line_error(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = uniemox("data", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"error: {message}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_check_finds_problems_and_split_excludes_them(root: Path, tmp_path: Path) -> None:
    (root / "awe" / "copy.jpg").write_bytes((root / "awe" / "0.jpg").read_bytes())
    (root / "awe" / "cut.jpg").write_bytes((root / "awe" / "1.jpg").read_bytes()[:3000])
    page = tmp_path / "page.html"
    report = tmp_path / "check.json"
    file = tmp_path / "split.json"
    done = uniemox("data", "check", f"folder:{root}", "--html", page, "--json")
    report_values = json.loads(done.stdout)
    assert [group["paths"] for group in report_values["corrupt"]] == [[f"{root}/awe/cut.jpg"]]
    assert report_values["exact_duplicates"] == [
        {"paths": [f"{root}/awe/0.jpg", f"{root}/awe/copy.jpg"], "labels": ["awe", "awe"], "splits": [None, None]}
    ]
    assert page.read_text().startswith("<!doctype html>")
    report.write_text(done.stdout)
    output = uniemox("data", "check", f"folder:{root}").stdout.replace("\n", " ")
    assert "2 samples should be excluded" in output
    arguments = ("data", "split", f"folder:{root}", file, "--ratio", "50/50", "--exclude", report, "--json")
    assert json.loads(uniemox(*arguments).stdout)["sizes"] == {"train": 10, "test": 10}
    samples = lines_of(uniemox("data", "show", f"folder:{root}", "--splits", file, "--json").stdout)
    assert sorted(str(line["split"]) for line in samples) == ["test"] * 10 + ["train"] * 10
    second_check = json.loads(uniemox("data", "check", f"folder:{root}", "--splits", file, "--json").stdout)
    assert (second_check["n"], second_check["exclude"]) == (20, [])


def test_check_says_that_folders_are_read_as_labels_and_checks_an_archive_without(tmp_path: Path) -> None:
    archive = class_folders(tmp_path / "archive", ("2001", "2002"), each=2)
    (archive / "2002" / "copy.jpg").write_bytes((archive / "2001" / "0.jpg").read_bytes())
    (archive / "top.jpg").write_bytes((archive / "2001" / "1.jpg").read_bytes())
    (archive / "gone.jpg").symlink_to("nowhere")
    done = uniemox("data", "check", f"folder:{archive}", "--json")
    assert len(json.loads(done.stdout)["label_conflicts"]) == 1
    source = f"folder:{archive}?labels=none"
    assert f"read as labels: 2001, 2002. If they are not labels, check '{source}'" in done.stderr
    assert "1 image outside the class folders was left out: top.jpg" in done.stderr
    without = uniemox("data", "check", source, "--json")
    found = json.loads(without.stdout)
    assert (len(found["exact_duplicates"]), found["label_conflicts"]) == (2, [])
    assert "the images are read without labels" in without.stderr
    assert "read as labels" not in without.stderr


def test_split_reports_classes_without_images_in_a_split(tmp_path: Path) -> None:
    done = uniemox("data", "split", f"folder:{class_folders(tmp_path / 'tiny', each=4)}", tmp_path / "s.json")
    sizes = {
        word.split()[0]: int(word.split()[1]) for word in done.stdout.partition(": ")[2].partition(" (")[0].split(", ")
    }
    assert (sizes["test"], sizes["val"]) == (1, 1)
    assert {line.split(":")[0] for line in done.stderr.splitlines() if "has no image in" in line} in (
        {"awe has no image in test", "fear has no image in val"},
        {"fear has no image in test", "awe has no image in val"},
        {"awe has no image in test and val"},
        {"fear has no image in test and val"},
    )


def test_split_explains_shares_that_groups_prevent(tmp_path: Path) -> None:
    class_folders(tmp_path / "tiny", each=10)
    rows = [f"{label}/{i}.jpg,{label},{i // 5}" for label in ("awe", "fear") for i in range(10)]
    (tmp_path / "images.csv").write_text("\n".join(["path,label,group", *rows]))
    source = f"csv:{tmp_path / 'images.csv'}?root={tmp_path / 'tiny'}"
    done = uniemox("data", "split", source, tmp_path / "s.json", "--ratio", "80/20")
    reason = "% of the images instead of 80/20 %: 20 images are in 2 groups of images that belong together"
    assert reason in " ".join(done.stderr.split())


@pytest.mark.thorough
def test_split_plots_the_choice_among_schemes(tmp_path: Path) -> None:
    plot = tmp_path / "choice.png"
    arguments = ("synthetic:96", tmp_path / "s.json", "--schemes", 5, "--plot", plot, "--fraction", 0.5, "--json")
    done = json.loads(uniemox("data", "split", *arguments).stdout)
    assert re.fullmatch(r"80/10/10, the best of 5 schemes from seed 0: seed [0-4], 0\.5 of train", done["how"])
    assert sum(done["sizes"].values()) < 96 - 30
    assert plot.read_bytes().startswith(b"\x89PNG")
    splits = (tmp_path / "s.json").read_bytes()
    again = uniemox("data", "split", "synthetic:96", tmp_path / "s.json", "--seed", 1)
    assert (again.returncode, "s.json is there already; delete it" in again.stderr.replace("\n", "")) == (1, True)
    assert (tmp_path / "s.json").read_bytes() == splits


def test_persons_describe_and_shard_resume(root: Path, tmp_path: Path) -> None:
    detector = write_constant(tmp_path / "nobody.onnx", [np.zeros((1, 85, 22, 22))], (352, 352))  # as FastestDet
    done = uniemox("data", "persons", f"folder:{root}", "--detector", detector, "--json")
    report = json.loads(done.stdout)
    assert (report["pictures"], report["new"], report["people"]) == (20, 20, 0)
    assert "20 images (0 in this run), 0 people" in uniemox(
        "data", "persons", f"folder:{root}", "--detector", detector
    ).stdout.replace("\n", " ")
    described = json.loads(uniemox("data", "describe", f"folder:{root}", "--without-emotion", "--json").stdout)
    assert described == {"file": f"{root}/texts.jsonl", "samples": 20, "broken": []}
    out = tmp_path / "packed"
    done = uniemox("data", "shard", f"folder:{root}", out, "--short-side", 64, "--samples", 8, "--workers", 2)
    assert "20 samples" in done.stdout
    second_run = uniemox("data", "shard", f"folder:{root}", out, "--short-side", 64, "--samples", 8, "--json")
    assert json.loads(second_run.stdout) == {"folder": str(out), "samples": 20, "broken": []}
    samples = lines_of(uniemox("data", "show", f"shards:{out}", "--json").stdout)
    assert len(samples) == 20
    assert all(line["boxes"] == [] and str(line["text"]).endswith(" photo.") for line in samples)


def test_bench_data_prints_speed_and_memory_growth(root: Path) -> None:
    result = json.loads(uniemox("bench", "data", "--data", f"folder:{root}", "--soak", 40, "--json").stdout)
    assert (result["samples"], result["passes"]) == (20, 3)
    assert result["samples_per_s"] > 1
    assert result["shards_samples_per_s"] > 1
    assert result["memory_growth_mb"] >= 0


def test_closed_standard_output_ends_the_command_quietly(root: Path) -> None:
    code = "from uniemox.cli import main; main()"
    command = [sys.executable, "-c", code, "data", "show", "synthetic:3000", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141
