"""From images of every kind to predictions, against a plain computation; alone and in batches; what goes wrong."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import SIZE, WhiteFinder, answer, made, one, values
from uniemox.errors import ConfigError, ImageError, LabelError
from uniemox.io.images import decode
from uniemox.io.walking import LeftOut
from uniemox.labels import HECO, MIKELS
from uniemox.persons.box import Box, PersonCrop
from uniemox.predict.images import list_images, walk
from uniemox.predict.network import Network
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.views import person_view, scene_view

FELT = {"labels": HECO.labels, "label_set": "heco", "kind": "felt"}


def person_image(size: tuple[int, int] = (90, 70), box: tuple[int, int, int, int] = (20, 10, 50, 60)) -> Image.Image:
    image = draw_image(1, size).point(lambda value: min(value, 200))
    image.paste("white", box)
    return image


def test_probabilities_match_a_plain_computation(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw_image(5, (120, 90)).save(path)
    found = one(predictor.predict(path))
    expected = answer([scene_view(decode(path.read_bytes())[0], SIZE, 0.9)])
    assert values(found) == pytest.approx(expected, abs=1e-5)
    assert tuple(found.scene) == MIKELS.labels == predictor.labels
    assert sum(values(found)) == pytest.approx(1, abs=1e-9)
    assert found.top(2) == sorted(found.scene.items(), key=lambda pair: -pair[1])[:2]
    about = (found.kind, found.path, found.width_px, found.height_px, found.label_set, found.model)
    assert about == ("evoked", str(path), 120, 90, "mikels", "scene.onnx")
    assert (found.persons, found.likely) == (None, None)
    assert (predictor.name, predictor.kind, predictor.label_set) == ("scene.onnx", "evoked", "mikels")


def test_empty_lists_and_folders(predictor: Predictor, tmp_path: Path) -> None:
    assert predictor.predict([]) == []
    assert list(predictor.predict_each(iter(()))) == []
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match="no image in this folder"):
        predictor.predict(tmp_path)


def test_a_folder_is_its_images_in_order(predictor: Predictor, tmp_path: Path) -> None:
    for name in ("b.png", "a/2.png", "a/1.PNG", "a/b/0.png", ".hidden.png", ".git/x.png", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(len(name)).save(tmp_path / name, "PNG")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"?")
    (tmp_path / "a" / "again").symlink_to(tmp_path)  # would never end
    with pytest.warns(UserWarning, match="1 links to a folder around them were not followed: .*/a/again"):
        found = predictor.predict(str(tmp_path))
    assert isinstance(found, list)
    names = [str(Path(str(result.path)).relative_to(tmp_path)) for result in found]
    assert names == ["a/1.PNG", "a/2.png", "a/b/0.png", "a/broken.jpg", "b.png"]
    assert [isinstance(result, Failure) for result in found] == [False, False, False, True, False]


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    """As ImageFolder of torchvision follows them; links that would repeat images are counted."""
    photos = tmp_path / "photos"
    store = tmp_path / "store"
    for path in (photos / "a/1.png", store / "2.png", store / "deep/3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(1).save(path)
    (photos / "a/link").symlink_to(store)
    (photos / "b").symlink_to("../store")
    (store / "up").symlink_to(store)
    left = LeftOut()
    found = [path.relative_to(photos).as_posix() for path in walk(photos, left)]
    assert found == ["a/1.png", "a/link/2.png", "a/link/deep/3.png"]
    assert left.link_notes(photos) == (
        "1 links to a folder around them were not followed: a/link/up",
        "1 links to a folder that was already read were not followed again: b",
    )
    assert list(list_images([str(photos)])) == [str(photos / name) for name in found]


def test_images_are_read_lazily(predictor: Predictor) -> None:
    """Of a list without end at most the batch, twice as many ahead and the next one are taken."""
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield Image.new("RGB", (8, 8), (taken % 255, 0, 0))

    results = predictor.predict_each(endless(), batch_size=4)
    for seen in range(1, 30):
        assert isinstance(next(results), Prediction)
        assert taken <= seen + 4 * 3 + 1
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        predictor.predict_each([], batch_size=0)


def test_person_boxes_are_in_px_of_the_full_image(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(jpeg_of(person_image((900, 700), (200, 100, 500, 600)), quality=95))
    finder = WhiteFinder()
    [person] = one(Predictor(Network.open(model), finder).predict(path)).persons or []
    assert person.box == pytest.approx((200, 100, 500, 600), abs=10)
    assert (person.confidence, person.emotions) == (0.75, None)
    assert one(Predictor(Network.open(model), finder).predict(draw_image(1).point(lambda v: v // 2))).persons == []


def test_the_person_network_predicts_the_emotions_of_each_person(model: Path, tmp_path: Path) -> None:
    image = person_image()
    dark = draw_image(1).point(lambda value: value // 2)
    crop = person_view(image, PersonCrop(Box(20, 10, 50, 60), "largest"), image.size, SIZE)
    scene = scene_view(image, SIZE, 0.9)
    for streams, views in (("person", [crop]), ("both", [scene, crop])):
        network = made(tmp_path, streams=streams, seed=3, **FELT)
        predictor = Predictor(Network.open(model), WhiteFinder(), network)
        found = predictor.predict([dark, image, image, dark])
        counts = [len(one(result).persons or []) for result in found]  # type: ignore[arg-type]
        assert counts == [0, 1, 1, 0]
        [person] = one(found[1]).persons or []  # type: ignore[arg-type]
        assert person.emotions is not None
        assert tuple(person.emotions) == HECO.labels
        expected = answer(views, seed=3, **FELT)
        assert list(person.emotions.values()) == pytest.approx(expected, abs=1e-5)
        polar = one(predictor.predict(image, labels="polarity"))
        emotions = (polar.persons or [])[0].emotions
        assert emotions is not None
        assert set(emotions) == {"negative", "positive"}
        kept = one(predictor.predict(image, labels="mikels")).persons or []
        assert tuple(kept[0].emotions or ()) == HECO.labels  # what is felt has no counterpart in what is evoked


@pytest.mark.parametrize("policy", ["largest", "persons_only"])
def test_both_streams_use_the_person_or_the_whole_image(policy: str, tmp_path: Path) -> None:
    network = made(tmp_path, streams="both", person=policy, seed=2)
    image = person_image()
    scene = scene_view(image, SIZE, 0.9)
    box = Box(20, 10, 50, 60)
    whole = PersonCrop(Box(0, 0, *image.size), "whole_image_nobody_looked")
    seen = PersonCrop(box, "largest") if policy == "largest" else replaced(whole, box)
    for finder, crop in ((WhiteFinder(), seen), (None, whole)):
        found = one(Predictor(network, finder).predict(image))
        expected = answer([scene, person_view(image, crop, image.size, SIZE)], seed=2)
        assert values(found) == pytest.approx(expected, abs=1e-5)


def replaced(whole: PersonCrop, keep: Box) -> PersonCrop:
    return whole._replace(source="persons_only", keep=(keep,))


def test_unsuitable_person_networks_are_refused(model: Path, tmp_path: Path) -> None:
    felt = made(tmp_path, streams="person", **FELT)
    with pytest.raises(ConfigError, match="needs a person detector"):
        Predictor(Network.open(model), None, felt)
    for wrong in (Network.open(model), made(tmp_path, streams="person"), made(tmp_path, **FELT)):
        with pytest.raises(ConfigError, match="a person model must predict felt emotions"):
            Predictor(Network.open(model), WhiteFinder(), wrong)


def test_answers_in_another_label_set(predictor: Predictor, tmp_path: Path) -> None:
    image = draw_image(6)
    own = one(predictor.predict(image)).scene
    polar = one(predictor.predict(image, labels="Polarity"))
    bad = own["anger"] + own["disgust"] + own["fear"] + own["sadness"]
    assert polar.scene == pytest.approx({"negative": bad, "positive": 1 - bad})
    assert (polar.label_set, polar.kind) == ("polarity", "evoked")
    ekman = one(predictor.predict(image, labels="ekman")).scene  # awe is dropped, surprise never reached
    joy = own["amusement"] + own["contentment"] + own["excitement"]
    rest = {label: own[label] for label in ("anger", "disgust", "fear", "sadness")}
    expected = {label: value / (1 - own["awe"]) for label, value in {**rest, "joy": joy}.items()}
    assert ekman == pytest.approx(expected)
    assert one(predictor.predict(image, labels="mikels")).scene == pytest.approx(own)
    for labels, message in (("heco", "describes evoked"), ("nothing", "no label set"), ("ube", None)):
        if message is None:
            assert sum(values(one(predictor.predict(image, labels=labels)))) == pytest.approx(1)
        else:
            with pytest.raises(LabelError, match=message):
                predictor.predict_each([image], labels=labels)
    words = Predictor(made(tmp_path, labels=("blue", "green"), label_set="custom"))
    with pytest.raises(LabelError, match="of polarity no label is reached by blue, green"):
        words.predict(image, labels="polarity")
    words = Predictor(made(tmp_path, labels=("happy", "bored", "green"), label_set="custom"))
    with pytest.raises(LabelError, match="of polarity only positive is reached by happy, bored, green"):
        words.predict(image, labels="polarity")


def test_valence_and_arousal_are_numbers(tmp_path: Path) -> None:
    info = {"labels": ("valence", "arousal"), "task": "affect", "temperature": None}
    predictor = Predictor(made(tmp_path, **info))
    found = one(predictor.predict(draw_image(1)))
    logits = predictor.network.logits({"scene": predictor.network.pixels(scene_view(draw_image(1), SIZE, 0.9)[None])})
    assert values(found) == pytest.approx(4 * logits[0] + 5)
    for asked in ({"coverage": 0.9}, {"labels": "polarity"}):
        with pytest.raises(ConfigError, match="valence and arousal"):
            predictor.predict(draw_image(1), **asked)  # type: ignore[arg-type]


def test_likely_labels(predictor: Predictor, tmp_path: Path) -> None:
    scores = tuple(i / 10 for i in range(10))
    calibrated = Predictor(made(tmp_path, conformal_scores=scores))
    image = draw_image(6)
    found = one(calibrated.predict(image, coverage=0.8))
    limit = scores[9 - 1]  # ceil(11 * 0.8)
    ranked = [label for label, p in found.top(8) if p >= 1 - limit]
    assert found.likely == tuple(ranked or [found.top(1)[0][0]])
    polar = one(calibrated.predict(image, coverage=0.8, labels="polarity"))
    negative = {"anger", "disgust", "fear", "sadness"}
    assert set(polar.likely or ()) == {"negative" if label in negative else "positive" for label in found.likely or ()}
    with pytest.raises(ConfigError, match=r"is impossible with labels ekman: awe of .* has no counterpart there"):
        calibrated.predict(image, coverage=0.8, labels="ekman")
    with pytest.raises(ConfigError, match="has no scores"):
        predictor.predict(image, coverage=0.8)
    with pytest.raises(ConfigError, match=r"at most 0\.909"):
        calibrated.predict(image, coverage=0.95)


@pytest.fixture(scope="module")
def known(predictor: Predictor) -> list[list[float]]:
    return [values(one(predictor.predict(Image.new("RGB", (9, 9), (80 * kind, 90, 10))))) for kind in range(3)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=9), st.integers(1, 5))
def test_predictions_do_not_depend_on_the_batch(
    predictor: Predictor, known: list[list[float]], kinds: list[int], batch_size: int
) -> None:
    """Whatever the order of good and bad images, and however they fall into batches."""
    images: list[Any] = [b"bad" if kind == 3 else Image.new("RGB", (9, 9), (80 * kind, 90, 10)) for kind in kinds]
    found = list(predictor.predict_each(images, batch_size=batch_size))
    assert len(found) == len(kinds)
    for kind, result in zip(kinds, found, strict=True):
        assert isinstance(result, Failure) == (kind == 3)
        if isinstance(result, Prediction):
            assert values(result) == pytest.approx(known[kind], abs=1e-5)


def test_a_prediction_as_json_and_as_an_image(model: Path, tmp_path: Path) -> None:
    network = made(tmp_path, streams="person", **FELT)
    path = tmp_path / "p.png"
    person_image().save(path)
    found = one(Predictor(Network.open(model), WhiteFinder(), network).predict(path))
    said = found.to_dict()
    assert said["persons"][0]["box"] == [20.0, 10.0, 50.0, 60.0]
    assert said["persons"][0]["emotions"] == pytest.approx((found.persons or [])[0].emotions, abs=1e-6)
    assert said["scene"] == pytest.approx(found.scene, abs=1e-6)
    drawn = found.plot()
    assert drawn.width == 240  # small images are drawn larger, so that words fit
    assert drawn.height > 70 * 240 / 90 + 8 * 20
    scale = 240 / 90
    assert drawn.getpixel((round(20 * scale) + 1, round(40 * scale))) == (255, 176, 0)
    path.unlink()
    with pytest.raises(ImageError, match="can't be read"):
        found.plot()
    with pytest.raises(ImageError, match="no longer has its image"):
        replace(found, source=None).plot()
    assert one(Predictor(Network.open(model)).predict(draw_image(1, (900, 3000)))).plot().width >= 240
    strip = one(Predictor(Network.open(model)).predict(Image.new("RGB", (10, 1000)))).plot()
    assert (strip.width, strip.height < 1300) == (240, True)


def test_nothing_imports_torch(model: Path, tmp_path: Path) -> None:
    draw_image(1).save(tmp_path / "a.jpg")
    code = (
        f"import sys, uniemox; before = set(sys.modules); p = uniemox.load({str(model)!r}, finder=None);"
        f"p.predict({str(tmp_path / 'a.jpg')!r}, labels='polarity').plot();"
        "print({'numpy', 'onnxruntime'} & before, {'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "set() set()\n"
