"""Copies of one image under several names count as one image, and copies of one model as one model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import class_folders, draw_image
from tests.evaluate.test_run import labelled_data, score
from tests.predict.networks import tiny_network
from uniemox.data.hashes import fingerprints
from uniemox.data.overlaps import JoinedCopies
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.seen import hashes_of, seen_file, write_hashes
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.rating_fit import fit_ratings
from uniemox.evaluate.recalibration import recalibrate
from uniemox.evaluate.run_records import Predictions
from uniemox.evaluate.same_images import refuse_equal_answers
from uniemox.evaluate.scores import ClassScores


def copied(data: DataSet, times: int) -> DataSet:
    """Every image under several names."""
    samples = [
        replace(sample, key=f"{number}/{sample.key}", group=None) for number in range(times) for sample in data.samples
    ]
    return replace(data, samples=samples)


def test_scores_of_copies_have_the_interval_of_the_images() -> None:
    data = labelled_data()
    once = score(data)
    five_times = score(copied(data, 5))
    assert isinstance(once.scores, ClassScores)
    assert isinstance(five_times.scores, ClassScores)
    assert five_times.scores.accuracy == once.scores.accuracy
    assert five_times.scores.accuracy_interval == pytest.approx(once.scores.accuracy_interval, abs=0.02)
    assert len({line["group"] for line in five_times.predictions}) == len(data)
    assert any(note.startswith("40 images are copies of another one") for note in five_times.notes)
    assert not any("copies of another one" in note for note in once.notes)


def test_groups_that_share_an_image_are_one_but_keep_their_names_in_tables() -> None:
    data = labelled_data()
    first, second, *others = data.samples
    samples = [replace(first, group="a"), replace(second, group="b", image=first.image), *others]
    evaluation = score(replace(data, samples=samples), by="group")
    assert evaluation.by is not None
    assert {"a", "b"} <= set(evaluation.by.groups)
    lines = {line["key"]: line["group"] for line in evaluation.predictions}
    assert lines[first.key] == lines[second.key]


def test_copies_in_another_file_and_people_of_one_image(tmp_path: Path) -> None:
    image = draw_image(1, (96, 96))
    image.save(tmp_path / "a.png")
    image.resize((80, 80), Image.Resampling.BICUBIC).save(tmp_path / "b.jpg", quality=90)
    draw_image(2, (96, 96)).save(tmp_path / "c.png")
    files = [ImageFile(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")]
    samples = [Sample(key=file.path.name, image=file) for file in files]
    joined = JoinedCopies.of(samples, fingerprints(samples)[0])
    groups = [sample.group for sample in joined.samples]
    assert groups[0] == groups[1] is not None
    assert groups[2] is None
    assert joined.surplus == ("b.jpg",)
    people = [samples[0], replace(samples[0], key="a.png#2"), samples[2]]
    joined = JoinedCopies.of(people, fingerprints(people)[0])
    assert (joined.samples, joined.surplus, joined.note) == (people, (), "")


def test_copies_are_not_enough_images_to_calibrate(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'few', each=6)}?labels=mikels")
    images = data.samples
    model = str(tiny_network(tmp_path / "m.onnx", distances=(5.0, 200.0), conformal_scores=(0.5,)))
    with pytest.raises(DataError, match=f"only {len(images)} of {4 * len(images)} images"):
        recalibrate(model, copied(data, 4), tmp_path / "mine.onnx")
    rated = [replace(sample, valence=1.0 + i % 8, arousal=2.0 + i % 5) for i, sample in enumerate(images)]
    many = copied(replace(data, samples=rated), 120 // len(rated) + 1)
    with pytest.raises(DataError, match=f"only {len(images)} of {len(many)} rated images"):
        fit_ratings(model, many, tmp_path / "rated.onnx")


def test_images_that_differ_in_a_detail_are_no_copies(tmp_path: Path) -> None:
    """Their hashes differ by few bits, like those of drawn faces with several expressions."""
    image = draw_image(1, (224, 224))
    image.save(tmp_path / "a.png")
    mouth = image.copy()
    mouth.paste((255, 255, 255), (90, 150, 130, 170))
    mouth.save(tmp_path / "b.png")
    image.resize((300, 200), Image.Resampling.BICUBIC).save(tmp_path / "c.jpg", quality=60)
    samples = [Sample(key=name, image=ImageFile(tmp_path / name)) for name in ("a.png", "b.png", "c.jpg")]
    joined = JoinedCopies.of(samples, fingerprints(samples)[0])
    assert joined.surplus == ("c.jpg",)
    assert joined.samples[1].group is None


def test_ratings_are_not_fitted_to_training_images_of_the_classifier(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'photos', each=60)}?labels=mikels")
    rated = [replace(sample, valence=1.0 + i % 8, arousal=2.0 + i % 5) for i, sample in enumerate(data.samples)]
    model = tiny_network(tmp_path / "m.onnx", distances=(5.0, 200.0), conformal_scores=(0.5,))
    assert fit_ratings(str(model), replace(data, samples=rated), tmp_path / "a.onnx").may_be_seen
    write_hashes(seen_file(model), hashes_of(rated[:15]))
    fit = fit_ratings(str(model), replace(data, samples=rated), tmp_path / "b.onnx")
    assert (fit.images, fit.may_be_seen) == (105, False)
    [note] = fit.notes
    first = min(sample.key for sample in rated[:15])
    assert note.startswith(f"15 images were left out, such as {first}: the classifier")
    write_hashes(seen_file(model), hashes_of(rated[:30]))
    with pytest.raises(DataError, match=r"only 90 of 120 rated images .* are new to the classifier"):
        fit_ratings(str(model), replace(data, samples=rated), tmp_path / "c.onnx")


def predictions(shares: np.ndarray) -> Predictions:
    """Predictions of two labels for N images.  shares: (N,)."""
    names = tuple(f"{number}.jpg" for number in range(len(shares)))
    probabilities = np.stack([shares, 1 - shares], axis=1)
    labels = np.zeros(len(shares), dtype=int)
    return Predictions(
        keys=names,
        groups=names,
        labels=labels,
        predicted=probabilities.argmax(axis=1),
        probabilities=probabilities,
        scored_labels=("awe", "fear"),
    )


def test_a_run_and_its_export_are_one_model() -> None:
    shares = np.linspace(0.1, 0.9, 20)
    exported = predictions(shares + 0.002)
    other_seed = predictions(np.append(shares[:-1], 0.5))
    runs = [Path("run"), Path("exported")]
    with pytest.raises(ConfigError, match="run and exported give the same probabilities for all 20 images"):
        refuse_equal_answers("ours", runs, [predictions(shares), exported])
    refuse_equal_answers("ours", runs, [predictions(shares), other_seed])
