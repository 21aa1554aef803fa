"""A release in other programs: mlcroissant reads its images, and the Hugging Face hub its header and labels."""

import json
from collections import Counter
from pathlib import Path

import mlcroissant as mlc
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image
from sqlalchemy import update

from tests.curate.places import project_of, say
from tests.drawn import draw_image
from tests.images import save
from uniemox.data.readers.rows import read_rows
from uniemox.data.source import open_data
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import verdicts
from uniemox_curate.decisions import Change, append
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.hub_card import hub_header, licence_fields
from uniemox_curate.release.run import release
from uniemox_curate.release.splitting import split

RATIOS = {"train": 0.6, "val": 0.2, "test": 0.2}
NAME = 'Tiny: "é" 🙂 # {1}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Release of twenty images; the first ten have a style."""
    place = tmp_path_factory.mktemp("release")
    project = project_of(place / "p", ["awe", "fear"] * 10, looks=True)
    say(project, Ada="af" * 10, Ben="af" * 10)
    with project.store.write() as connection:
        changes = [Change(number, "style", "science fiction") for number in range(1, 11)]
        append(connection, actor="me", step="by hand", note="", changes=changes)
    return released(project, place / "out")


def released(project: Project, out: Path) -> Path:
    split(project, verdicts(project), RATIOS, schemes=1)
    release(project, out, ReleaseConfig(name=NAME, licence="CC-BY-2.0"))
    return out


def labels_of(folder: Path) -> dict[str, dict[str, str]]:
    """Rows of labels.csv by path."""
    rows = [row for _, row in read_rows(folder / "labels.csv", columns=("path",))]
    return {row["path"]: row for row in rows}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request to another machine")

    monkeypatch.setattr("socket.socket.connect", refuse)


@pytest.mark.usefixtures("offline")
def test_records_of_croissant_have_the_pictures(folder: Path) -> None:
    dataset = mlc.Dataset(jsonld=folder / "croissant.json")
    assert not dataset.metadata.issues.errors
    records = list(dataset.records("pictures"))
    rows = labels_of(folder)
    assert len(records) == len(rows) == 20
    for record in records:
        path = record["pictures/path"].decode()
        row = rows.pop(path)
        assert record["pictures/label"].decode() == row["label"]
        assert record["pictures/split"].decode() == row["split"]
        assert (record["pictures/domain"] or b"").decode() == row["domain"]
        with Image.open(folder / path) as image:
            assert np.array_equal(np.asarray(record["pictures/image"]), np.asarray(image.convert("RGB")))


def test_croissant_describes_images_of_several_formats(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe", "fear"] * 10, looks=True)
    say(project, Ada="af" * 10, Ben="af" * 10)
    with project.store.write() as connection:
        for number, image_format in ((3, "PNG"), (4, "WEBP"), (5, "GIF")):
            data = save(draw_image(number, (160, 140)), image_format)
            values = {"sha256": project.keep_file(data, image_format), "format": image_format}
            connection.execute(update(t.images).where(t.images.c.id == number).values(values))
    path = released(project, tmp_path / "out") / "croissant.json"
    [files] = [part for part in json.loads(path.read_text())["distribution"] if part["@type"] == "cr:FileSet"]
    assert json.loads(path.read_text())["license"] == "CC-BY-2.0"
    assert files["encodingFormat"] == ["image/jpeg", "image/png", "image/webp", "image/gif"]
    assert files["includes"] == [f"pictures/*.{ending}" for ending in ("jpg", "png", "webp", "gif")]
    records = list(mlc.Dataset(jsonld=path).records("pictures"))
    assert [record["pictures/image"].size for record in records] == [(160, 140)] * 20


def test_hub_reads_the_header_of_the_datasheet(folder: Path) -> None:
    data = DatasetCard.load(folder / "README.md").data
    assert data.pretty_name == NAME
    assert data.license == "cc-by-2.0"
    assert data.task_categories == ["image-classification"]
    assert data.size_categories == ["n<1K"]
    [config] = data.configs
    names = [part["split"] for part in config["data_files"]]
    assert (config["config_name"], names) == ("default", ["train", "validation", "test"])


def test_files_of_each_split_on_the_hub_have_their_labels(folder: Path) -> None:
    """As `datasets` does: a metadata file beside images lists them, relative to its folder."""
    [config] = DatasetCard.load(folder / "README.md").data.configs
    rows = labels_of(folder)
    types = set()
    for part in config["data_files"]:
        files = {path for path in folder.glob(part["path"] + "/*") if path.is_file()}
        [table] = [path for path in files if path.name == "metadata.jsonl"]
        lines = [json.loads(line) for line in table.read_text().splitlines()]
        assert {table.parent / line["file_name"] for line in lines} == files - {table}
        for line in lines:
            row = rows.pop((table.parent / line["file_name"]).relative_to(folder).as_posix())
            assert (line["label"], line["domain"]) == (row["label"], row["domain"])
            types.add(tuple((name, type(value)) for name, value in line.items()))
    assert not rows
    assert len(types) == 1  # `datasets` refuses splits of other types


def test_labels_of_the_hub_do_not_disturb_the_readers(folder: Path) -> None:
    data = open_data(f"emo8:{folder / 'pictures'}")
    assert not data.notes
    assert Counter(sample.split for sample in data.samples) == Counter(
        row["split"] for row in labels_of(folder).values()
    )


@pytest.mark.parametrize(
    ("licence", "images", "fields"),
    [
        ("", ["by 2.0"], {}),
        ("CC0-1.0", ["CC0 1.0", "cc0-1.0"], {"license": "cc0-1.0"}),
        ("CC-BY-SA-4.0", ["BY-SA 4.0"], {"license": "cc-by-sa-4.0"}),
        ("CC-BY-4.0", ["by 4.0", "by-nc 4.0"], {"license": "other", "license_link": "licences.md"}),
        ("Ours", ["Ours"], {"license": "other", "license_link": "licences.md"}),
    ],
)
def test_header_names_a_licence_only_if_all_have_it(licence: str, images: list[str], fields: dict[str, str]) -> None:
    named = licence_fields(ReleaseConfig(name="x", licence=licence), images)
    assert named.pop("license_name", "").endswith("-and-licences-of-the-images") == ("license_link" in fields)
    assert named == fields


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (13_200, "10K<n<100K"), (1_000_000, "1M<n<10M")],
)
def test_header_has_the_size_of_the_data_set(count: int, size: str) -> None:
    header = hub_header(ReleaseConfig(name="x"), [{"split": "train"}] * count, [])
    assert DatasetCard(header).data.to_dict()["size_categories"] == [size]
