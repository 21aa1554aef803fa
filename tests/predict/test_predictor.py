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
from PIL import Image, ImageFile

from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import SIZE, WhiteFinder, as_prediction, make_network, plain_probabilities, values
from uniemox.errors import ConfigError, ImageError, LabelError
from uniemox.io.decoding.pool import Child, Decoded
from uniemox.io.images import decode
from uniemox.io.sized_image import SizedImage
from uniemox.io.walking import LeftOut
from uniemox.labels import HECO, MIKELS
from uniemox.persons.box import Box, PersonCrop
from uniemox.predict.images import list_images, walk
from uniemox.predict.network import Network
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import to_frame
from uniemox.predict.views import person_view, scene_view

FELT = {"labels": HECO.labels, "label_set": "heco", "kind": "felt"}


def person_image(size: tuple[int, int] = (90, 70), box: tuple[int, int, int, int] = (20, 10, 50, 60)) -> Image.Image:
    image = draw_image(1, size).point(lambda value: min(value, 200))
    image.paste("white", box)
    return image


def test_probabilities_match_a_plain_computation(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    draw_image(5, (120, 90)).save(path)
    prediction = as_prediction(predictor.predict(path))
    expected = plain_probabilities([scene_view(decode(path.read_bytes())[0], SIZE, 0.9)])
    assert values(prediction) == pytest.approx(expected, abs=1e-5)
    assert tuple(prediction.scene) == MIKELS.labels == predictor.labels
    assert sum(values(prediction)) == pytest.approx(1, abs=1e-9)
    assert prediction.top(2) == sorted(prediction.scene.items(), key=lambda pair: -pair[1])[:2]
    properties = (
        prediction.kind,
        prediction.path,
        prediction.width_px,
        prediction.height_px,
        prediction.label_set,
        prediction.model,
    )
    assert properties == ("evoked", str(path), 120, 90, "mikels", "scene.onnx")
    assert (prediction.persons, prediction.likely) == (None, None)
    assert (predictor.name, predictor.kind, predictor.label_set) == ("scene.onnx", "evoked", "mikels")


def test_empty_lists_and_folders(predictor: Predictor, tmp_path: Path) -> None:
    assert predictor.predict_many([]) == []
    assert list(predictor.predict_each(iter(()))) == []
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match="no image in this folder"):
        predictor.predict_folder(tmp_path)


@pytest.mark.parametrize(("unmapped", "top"), [(None, "joy"), (0.5, "joy"), (0.51, "none")])
def test_an_answer_is_none_of_the_labels_if_more_than_half_has_no_counterpart(
    predictor: Predictor, unmapped: float | None, top: str
) -> None:
    converted = replace(predictor.predict(draw_image(1)), scene={"joy": 0.7, "fear": 0.3}, unmapped=unmapped)
    assert converted.has_no_counterpart == (top == "none")
    assert converted.to_dict()["unmapped"] == unmapped
    frame = to_frame(converted)
    assert frame["top"].tolist() == [top]
    assert converted.top(1)[0][0] == top
    assert sum(value for _, value in converted.top(9)) == pytest.approx(1)
    assert converted.plot().size > (0, 0)
    assert frame["unmapped"].tolist() == [pytest.approx(unmapped, nan_ok=True)] or unmapped is None


def test_lists_and_folders_given_to_predict_still_work_with_a_warning(predictor: Predictor, tmp_path: Path) -> None:
    draw_image(0).save(tmp_path / "a.png")
    with pytest.warns(DeprecationWarning, match="call predict_many for several images"):
        listed: Any = predictor.predict([tmp_path / "a.png"])  # type: ignore[arg-type]
    with pytest.warns(DeprecationWarning, match="call predict_folder for a folder"):
        in_folder: Any = predictor.predict(tmp_path)
    assert listed == in_folder == [predictor.predict(tmp_path / "a.png")]
    with pytest.raises(ImageError, match="there is no such folder"):
        predictor.predict_folder(tmp_path / "nowhere")


def test_predict_folder_answers_the_images_in_order_of_their_names(predictor: Predictor, tmp_path: Path) -> None:
    for name in ("b.png", "a/2.png", "a/1.PNG", "a/b/0.png", ".hidden.png", ".git/x.png", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(len(name)).save(tmp_path / name, "PNG")
    (tmp_path / "a" / "broken.jpg").write_bytes(b"?")
    # Following this link would never end.
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    with pytest.warns(UserWarning, match="1 link to a folder around it was not followed: .*/a/again"):
        predictions = predictor.predict_folder(str(tmp_path))
    assert isinstance(predictions, list)
    names = [str(Path(str(result.path)).relative_to(tmp_path)) for result in predictions]
    assert names == ["a/1.PNG", "a/2.png", "a/b/0.png", "a/broken.jpg", "b.png"]
    assert [isinstance(result, Failure) for result in predictions] == [False, False, False, True, False]


def test_linked_folders_are_read_once(tmp_path: Path) -> None:
    """Links are followed, as by ImageFolder of torchvision; links that would repeat images are counted."""
    photos = tmp_path / "photos"
    store = tmp_path / "store"
    for path in (photos / "a/1.png", store / "2.png", store / "deep/3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(1).save(path)
    (photos / "a/link").symlink_to(store)
    (photos / "b").symlink_to("../store")
    (store / "up").symlink_to(store)
    skipped = LeftOut()
    names = [path.relative_to(photos).as_posix() for path in walk(photos, skipped)]
    assert names == ["a/1.png", "a/link/2.png", "a/link/deep/3.png"]
    assert skipped.link_notes(photos) == (
        "1 link to a folder around it was not followed: a/link/up",
        "1 link to a folder that was already read was not followed again: b",
    )
    assert list(list_images([str(photos)])) == [str(photos / name) for name in names]


def test_images_are_read_lazily(predictor: Predictor) -> None:
    """At most the batch, twice as many images ahead and the next one are taken of an endless list."""
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield Image.new("RGB", (8, 8), (taken % 255, 0, 0))

    results = predictor.predict_each(endless(), batch_size=4)
    for count in range(1, 30):
        assert isinstance(next(results), Prediction)
        assert taken <= count + 4 * 3 + 1
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="batch_size must be at least 1"):
        predictor.predict_each([], batch_size=0)


def test_person_boxes_are_in_px_of_the_full_image(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    path.write_bytes(jpeg_of(person_image((900, 700), (200, 100, 500, 600)), quality=95))
    finder = WhiteFinder()
    [person] = as_prediction(Predictor(Network.open(model), finder).predict(path)).persons or []
    assert person.box == pytest.approx((200, 100, 500, 600), abs=10)
    assert (person.confidence, person.emotions) == (0.75, None)
    assert (
        as_prediction(Predictor(Network.open(model), finder).predict(draw_image(1).point(lambda v: v // 2))).persons
        == []
    )


def test_the_person_network_predicts_the_emotions_of_each_person(model: Path, tmp_path: Path) -> None:
    image = person_image()
    dark = draw_image(1).point(lambda value: value // 2)
    crop = person_view(SizedImage.of(image), PersonCrop(Box(20, 10, 50, 60), "largest"), SIZE)
    scene = scene_view(image, SIZE, 0.9)
    for streams, views in (("person", [crop]), ("both", [scene, crop])):
        network = make_network(tmp_path, streams=streams, seed=3, **FELT)
        predictor = Predictor(Network.open(model), WhiteFinder(), network)
        predictions = predictor.predict_many([dark, image, image, dark])
        counts = [len(as_prediction(result).persons or []) for result in predictions]  # type: ignore[arg-type]
        assert counts == [0, 1, 1, 0]
        [person] = as_prediction(predictions[1]).persons or []  # type: ignore[arg-type]
        assert person.emotions is not None
        assert tuple(person.emotions) == HECO.labels
        expected = plain_probabilities(views, seed=3, **FELT)
        assert list(person.emotions.values()) == pytest.approx(expected, abs=1e-5)
        polar = as_prediction(predictor.predict(image, labels="polarity"))
        emotions = (polar.persons or [])[0].emotions
        assert emotions is not None
        assert set(emotions) == {"negative", "positive"}
        unconverted = as_prediction(predictor.predict(image, labels="mikels")).persons or []
        # Felt emotions have no counterpart among evoked ones.
        assert tuple(unconverted[0].emotions or ()) == HECO.labels


@pytest.mark.parametrize("policy", ["largest", "persons_only"])
def test_both_streams_use_the_person_or_the_whole_image(policy: str, tmp_path: Path) -> None:
    network = make_network(tmp_path, streams="both", person=policy, seed=2)
    image = person_image()
    scene = scene_view(image, SIZE, 0.9)
    box = Box(20, 10, 50, 60)
    whole_image = PersonCrop(Box(0, 0, *image.size), "whole_image_nobody_looked")
    expected_crop = PersonCrop(box, "largest") if policy == "largest" else persons_only(whole_image, box)
    for finder, crop in ((WhiteFinder(), expected_crop), (None, whole_image)):
        prediction = as_prediction(Predictor(network, finder).predict(image))
        expected = plain_probabilities([scene, person_view(SizedImage.of(image), crop, SIZE)], seed=2)
        assert values(prediction) == pytest.approx(expected, abs=1e-5)


def persons_only(crop: PersonCrop, keep: Box) -> PersonCrop:
    return crop._replace(source="persons_only", keep=(keep,))


def test_unsuitable_person_networks_are_refused(model: Path, tmp_path: Path) -> None:
    felt = make_network(tmp_path, streams="person", **FELT)
    with pytest.raises(ConfigError, match="needs a person detector"):
        Predictor(Network.open(model), None, felt)
    for wrong in (Network.open(model), make_network(tmp_path, streams="person"), make_network(tmp_path, **FELT)):
        with pytest.raises(ConfigError, match="a person model must predict felt emotions"):
            Predictor(Network.open(model), WhiteFinder(), wrong)


def test_probabilities_are_converted_to_another_label_set(predictor: Predictor, tmp_path: Path) -> None:
    image = draw_image(6)
    scene = as_prediction(predictor.predict(image)).scene
    polar = as_prediction(predictor.predict(image, labels="Polarity"))
    negative = scene["anger"] + scene["disgust"] + scene["fear"] + scene["sadness"]
    assert polar.scene == pytest.approx({"negative": negative, "positive": 1 - negative})
    assert (polar.label_set, polar.kind) == ("polarity", "evoked")
    assert (as_prediction(predictor.predict(image)).unmapped, polar.unmapped) == (None, 0)
    # Ekman has no counterpart for awe, and its surprise is never reached.
    in_ekman = predictor.predict(image, labels="ekman")
    assert in_ekman.unmapped == pytest.approx(scene["awe"])
    ekman = in_ekman.scene
    joy = scene["amusement"] + scene["contentment"] + scene["excitement"]
    unchanged = {label: scene[label] for label in ("anger", "disgust", "fear", "sadness")}
    expected = {label: value / (1 - scene["awe"]) for label, value in {**unchanged, "joy": joy}.items()}
    assert ekman == pytest.approx(expected)
    assert as_prediction(predictor.predict(image, labels="mikels")).scene == pytest.approx(scene)
    for labels, message in (
        ("heco", "describes evoked"),
        ("nothing", "no label set 'nothing'; .* answer in mikels, ekman, ube, polarity$"),
        ("ube", None),
    ):
        if message is None:
            assert sum(values(as_prediction(predictor.predict(image, labels=labels)))) == pytest.approx(1)
        else:
            with pytest.raises(LabelError, match=message):
                predictor.predict_each([image], labels=labels)
    words = Predictor(make_network(tmp_path, labels=("blue", "green"), label_set="custom"))
    with pytest.raises(LabelError, match=r"none has a counterpart among the model's \(blue, green\); leave"):
        words.predict(image, labels="polarity")
    with pytest.raises(LabelError, match="no label set 'nothing'; the model can answer in its own labels only"):
        words.predict(image, labels="nothing")
    words = Predictor(make_network(tmp_path, labels=("happy", "bored", "green"), label_set="custom"))
    with pytest.raises(LabelError, match=r"only positive has a counterpart among the model's \(happy, bored"):
        words.predict(image, labels="polarity")


def test_valence_and_arousal_are_numbers(tmp_path: Path) -> None:
    info = {"labels": ("valence", "arousal"), "task": "affect", "temperature": None}
    predictor = Predictor(make_network(tmp_path, **info))
    prediction = as_prediction(predictor.predict(draw_image(1)))
    logits = predictor.network.logits({"scene": predictor.network.pixels(scene_view(draw_image(1), SIZE, 0.9)[None])})
    assert values(prediction) == pytest.approx(4 * logits[0] + 5)
    for unsupported in ({"coverage": 0.9}, {"labels": "polarity"}):
        with pytest.raises(ConfigError, match="valence and arousal"):
            predictor.predict(draw_image(1), **unsupported)  # type: ignore[arg-type]


def test_likely_labels_match_a_plain_computation(predictor: Predictor, tmp_path: Path) -> None:
    scores = tuple(i / 10 for i in range(10))
    calibrated = Predictor(make_network(tmp_path, conformal_scores=scores))
    image = draw_image(6)
    prediction = as_prediction(calibrated.predict(image, coverage=0.8))
    # The ninth score, because ceil(11 * 0.8) is 9.
    limit = scores[9 - 1]
    ranked = [label for label, p in prediction.top(8) if p >= 1 - limit]
    assert prediction.likely == tuple(ranked or [prediction.top(1)[0][0]])
    polar = as_prediction(calibrated.predict(image, coverage=0.8, labels="polarity"))
    negative = {"anger", "disgust", "fear", "sadness"}
    assert set(polar.likely or ()) == {
        "negative" if label in negative else "positive" for label in prediction.likely or ()
    }
    with pytest.raises(ConfigError, match=r"is impossible with labels ekman: awe of .* has no counterpart there"):
        calibrated.predict(image, coverage=0.8, labels="ekman")
    with pytest.raises(ConfigError, match="has no scores"):
        predictor.predict(image, coverage=0.8)
    with pytest.raises(ConfigError, match=r"at most 0\.909"):
        calibrated.predict(image, coverage=0.95)


@pytest.fixture(scope="module")
def expected_by_kind(predictor: Predictor) -> list[list[float]]:
    return [
        values(as_prediction(predictor.predict(Image.new("RGB", (9, 9), (80 * kind, 90, 10))))) for kind in range(3)
    ]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=9), st.integers(1, 5))
def test_predictions_do_not_depend_on_the_batch(
    predictor: Predictor, expected_by_kind: list[list[float]], kinds: list[int], batch_size: int
) -> None:
    """Whatever the order of good and bad images, and however they fall into batches."""
    images: list[Any] = [b"bad" if kind == 3 else Image.new("RGB", (9, 9), (80 * kind, 90, 10)) for kind in kinds]
    predictions = list(predictor.predict_each(images, batch_size=batch_size))
    assert len(predictions) == len(kinds)
    for kind, result in zip(kinds, predictions, strict=True):
        assert isinstance(result, Failure) == (kind == 3)
        if isinstance(result, Prediction):
            assert values(result) == pytest.approx(expected_by_kind[kind], abs=1e-5)


def test_a_prediction_as_json_and_as_an_image(model: Path, tmp_path: Path) -> None:
    network = make_network(tmp_path, streams="person", **FELT)
    path = tmp_path / "p.png"
    person_image().save(path)
    prediction = as_prediction(Predictor(Network.open(model), WhiteFinder(), network).predict(path))
    fields = prediction.to_dict()
    assert fields["persons"][0]["box"] == [20.0, 10.0, 50.0, 60.0]
    assert fields["persons"][0]["emotions"] == pytest.approx((prediction.persons or [])[0].emotions, abs=1e-6)
    assert fields["scene"] == pytest.approx(prediction.scene, abs=1e-6)
    drawn = prediction.plot()
    # Small images are drawn larger, so that words fit.
    assert drawn.width == 240
    assert drawn.height > 70 * 240 / 90 + 8 * 20
    scale = 240 / 90
    assert drawn.getpixel((round(20 * scale) + 1, round(40 * scale))) == (255, 176, 0)
    path.unlink()
    with pytest.raises(ImageError, match="can't be read"):
        prediction.plot()
    with pytest.raises(ImageError, match="no longer has its image"):
        replace(prediction, source=None).plot()
    assert as_prediction(Predictor(Network.open(model)).predict(draw_image(1, (900, 3000)))).plot().width >= 240
    strip = as_prediction(Predictor(Network.open(model)).predict(Image.new("RGB", (10, 1000)))).plot()
    assert (strip.width, strip.height < 1300) == (240, True)


def test_a_large_photograph_is_decoded_once_for_scene_people_and_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg_of(draw_image(1).resize((4000, 3000)))
    decoded: list[tuple[int, int]] = []
    load_pixels = ImageFile.ImageFile.load
    ask = Child.ask

    def count_load(image: ImageFile.ImageFile) -> Any:
        # Pillow empties the tiles of an image that it has decoded.
        if image.tile:
            decoded.append(image.size)
        return load_pixels(image)

    def count_ask(child: Child, *args: Any, **options: Any) -> Decoded:
        answer = ask(child, *args, **options)
        decoded.append(answer.image.size)
        return answer

    monkeypatch.setattr(ImageFile.ImageFile, "load", count_load)
    monkeypatch.setattr(Child, "ask", count_ask)
    predictor = load(faces="find")
    predictor.predict(data)
    assert len(decoded) == 1
    # Of several images, each is decoded in another process.
    predictor.predict_many([data, data])
    assert len(decoded) == 3


def test_prediction_does_not_import_torch(model: Path, tmp_path: Path) -> None:
    draw_image(1).save(tmp_path / "a.jpg")
    code = (
        f"import sys, uniemox; before = set(sys.modules); p = uniemox.load({str(model)!r}, finder=None);"
        f"p.predict({str(tmp_path / 'a.jpg')!r}, labels='polarity').plot();"
        "print({'numpy', 'onnxruntime'} & before, {'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "set() set()\n"
