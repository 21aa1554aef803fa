"""Faces: found, cut, read, linked to their people; off unless asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.drawn import draw_image
from tests.predict.networks import SIZE, as_prediction, plain_probabilities, tiny_network, values
from uniemox.errors import ConfigError, DetectorError
from uniemox.io.sized_image import SizedImage
from uniemox.labels import FERPLUS
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.faces import MIN_FACE_PX, FaceReader, face_square, owners, summarise_faces
from uniemox.predict.network import Network
from uniemox.predict.opening import load
from uniemox.predict.prediction import Face, Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.views import scene_view

SHOWN = {"labels": FERPLUS.labels, "label_set": "ferplus", "kind": "expressed", "crop_fraction": 1.0}
SIDES = st.floats(1, 500)
CORNERS = st.tuples(SIDES, SIDES, SIDES, SIDES)


class Finds:
    """A detector that finds the same boxes in every image."""

    name = "finds"
    fingerprint = "0"

    def __init__(self, *boxes: Box) -> None:
        self.boxes = boxes

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        return [tuple(Detection(box, 0.9) for box in self.boxes) for _ in images]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network.open(tiny_network(tmp_path_factory.mktemp("models") / "scene.onnx"), threads=1)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network(tmp_path_factory.mktemp("models") / "shown.onnx", seed=3, **SHOWN)


def predictor(scene: Network, shown: Path, *faces: Box, people: Sequence[Box] | None = None) -> Predictor:
    reader = FaceReader(Network.open(shown, threads=1), Finds(*faces))
    return Predictor(scene, None if people is None else Finds(*people), None, reader)


def faces_of(result: Prediction | list[Prediction | Failure]) -> list[Face]:
    faces = as_prediction(result).faces
    assert faces is not None
    return faces


def shown_by(face: Image.Image) -> np.ndarray:
    """Return the mean over a face and its mirror image, by a plain computation."""
    views = [scene_view(view, SIZE, 1.0) for view in (face, ImageOps.mirror(face))]
    return np.mean([plain_probabilities([view], seed=3, **SHOWN) for view in views], axis=0)


def test_expressions_match_a_plain_computation(scene: Network, shown: Path) -> None:
    """The grey square around the face's box, 1.14 times the mean of its sides, a little raised."""
    image = draw_image(1, (200, 160))
    box = Box(60, 40, 110, 100)
    prediction = as_prediction(predictor(scene, shown, box, people=[Box(50, 30, 130, 160)]).predict(image))
    [face] = faces_of(prediction)
    assert (face.box, face.confidence, face.person) == (box, 0.9, 0)
    side = 1.14 * (50 * 60) ** 0.5
    left = 85 - side / 2
    top = 70 - 0.02 * side - side / 2
    part = (round(left), round(top), round(left + side), round(top + side))
    square = image.crop(part).convert("L").convert("RGB")
    expected = shown_by(square)
    assert list((face.expressions or {}).values()) == pytest.approx(expected, abs=1e-5)
    assert tuple(face.expressions or ()) == FERPLUS.labels
    plain = as_prediction(Predictor(scene).predict(image))
    # With faces the full image is decoded, without them a smaller copy.
    assert values(prediction) == pytest.approx(values(plain), abs=0.02)
    assert plain.faces is None
    assert plain.to_dict()["faces"] is None


def test_faces_do_not_depend_on_the_batch(scene: Network, shown: Path) -> None:
    """Also with a face that is too small, which gets no expressions."""
    images = [draw_image(i, (200, 160)) for i in range(5)]
    small = Box(10, 10, 10 + MIN_FACE_PX - 0.5, 40)
    model = predictor(scene, shown, Box(60, 40, 110, 100), small, Box(120, 20, 180, 90))
    predictions = model.predict_many(images)
    for image, prediction in zip(images, predictions, strict=True):
        alone = faces_of(model.predict(image))
        assert [face.expressions is None for face in alone] == [False, True, False]
        assert isinstance(prediction, Prediction)
        for a, b in zip(alone, prediction.faces or [], strict=True):
            assert list((a.expressions or {}).values()) == pytest.approx(list((b.expressions or {}).values()), abs=1e-5)


def test_a_mirrored_image_has_mirrored_squares_with_the_same_grey(scene: Network, shown: Path) -> None:
    image = draw_image(2, (200, 160))
    box = Box(60, 40, 110, 101)
    mirrored = Box(200 - box.x2, box.y1, 200 - box.x1, box.y2)
    reader = FaceReader(Network.open(shown, threads=1), Finds(box))
    views = reader.views_of(SizedImage.of(image), box)
    mirrored_views = reader.views_of(SizedImage.of(ImageOps.mirror(image)), mirrored)
    for view, mirrored_view in zip(views, reversed(mirrored_views), strict=True):
        np.testing.assert_allclose(view["scene"], mirrored_view["scene"], atol=3)


def test_the_whole_image_may_be_the_face(scene: Network, shown: Path) -> None:
    image = draw_image(4, (48, 48))
    model = Predictor(scene, None, None, FaceReader(Network.open(shown, threads=1), None))
    [face] = faces_of(model.predict(image))
    assert (face.box, face.confidence, face.person) == (Box(0, 0, 48, 48), 1.0, None)
    expected = shown_by(image.convert("L").convert("RGB"))
    assert list((face.expressions or {}).values()) == pytest.approx(expected, abs=1e-5)


def test_no_face_is_an_empty_list_and_labels_are_mapped(scene: Network, shown: Path) -> None:
    image = draw_image(1, (200, 160))
    assert faces_of(predictor(scene, shown).predict(image)) == []
    [face] = faces_of(predictor(scene, shown, Box(60, 40, 110, 100)).predict(image, labels="polarity"))
    assert set(face.expressions or ()) == {"negative", "positive"}
    [face] = faces_of(predictor(scene, shown, Box(60, 40, 110, 100)).predict(image, labels="ekman"))
    assert set(face.expressions or ()) == {"anger", "disgust", "fear", "joy", "sadness", "surprise"}


class FindsInTurn(Finds):
    """Finds other boxes when it is called a second time."""

    def __init__(self, in_image: Sequence[Box], in_mirror: Sequence[Box]) -> None:
        self.in_image = in_image
        self.in_mirror = in_mirror
        self.calls = list[int]()

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        call = len(self.calls)
        self.calls.append(len(images))
        return [
            tuple(Detection(box, 0.8 - 0.2 * call) for box in (self.in_image, self.in_mirror)[call]) for _ in images
        ]


def test_detections_in_image_and_mirror_image_are_averaged() -> None:
    """In an image 100 px wide; what only one of the two shows is left out."""
    near = Box(10, 10, 30, 30)
    far = Box(60, 10, 80, 30)
    finder = MirrorDetector(FindsInTurn([near, far], [Box(68, 10, 88, 30), Box(0, 50, 20, 70)]))
    [[detection]] = finder.detect([Image.new("RGB", (100, 80))])
    assert detection.box == Box(11, 10, 31, 30)
    assert detection.confidence == pytest.approx(0.7)
    assert MirrorDetector(FindsInTurn([near], [])).detect([Image.new("RGB", (100, 80))] * 2) == [(), ()]
    assert MirrorDetector(FindsInTurn([], [])).detect([]) == []
    without = FindsInTurn([], [near])
    assert MirrorDetector(without).detect([Image.new("RGB", (100, 80))] * 3) == [(), (), ()]
    # Images in which nothing is found need no mirror image.
    assert without.calls == [3, 0]


def test_faces_are_assigned_to_owners() -> None:
    near = Box(0, 0, 100, 200)
    far = Box(0, 0, 300, 300)
    # Of two boxes that contain all of the face, the smaller one wins.
    assert owners([Box(20, 10, 60, 60)], [far, near]) == [1]
    # A person owns one face, the larger one.
    assert owners([Box(20, 10, 60, 60), Box(30, 20, 40, 30)], [near]) == [0, None]
    # Less than 0.7 of this face lies inside the box.
    assert owners([Box(80, 10, 130, 60)], [near]) == [None]
    assert owners([Box(20, 10, 60, 60)], []) == [None]
    assert owners([], [near]) == []


@given(SIDES, SIDES, SIDES, SIDES)
def test_face_squares_follow_the_box(x: float, y: float, width: float, height: float) -> None:
    square = face_square(Box(x, y, x + width, y + height))
    side = square.x2 - square.x1
    assert side == pytest.approx(square.y2 - square.y1) == pytest.approx(1.14 * (width * height) ** 0.5)
    assert (square.x1 + square.x2) / 2 == pytest.approx(x + width / 2)
    doubled = face_square(Box(2 * x, 2 * y, 2 * (x + width), 2 * (y + height)))
    assert doubled == pytest.approx([2 * value for value in square])


@given(st.lists(CORNERS, max_size=6), st.lists(CORNERS, max_size=4))
def test_each_person_owns_at_most_one_face(faces: list[tuple[float, ...]], people: list[tuple[float, ...]]) -> None:
    boxes = [[Box(x, y, x + w, y + h) for x, y, w, h in corners] for corners in (faces, people)]
    indices = [index for index in owners(boxes[0], boxes[1]) if index is not None]
    assert len(set(indices)) == len(indices)
    assert all(0 <= index < len(people) for index in indices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"faces": "all"}, "faces must be find or whole"),
        ({"face_model": "x.onnx"}, "need faces"),
        ({"faces": "whole", "face_finder": "x.onnx"}, "leave face_finder out"),
    ],
)
def test_face_settings_that_contradict_each_other_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(finder=None, **options)  # type: ignore[arg-type]


def test_models_of_another_kind_are_refused(tmp_path: Path, shown: Path) -> None:
    felt = tiny_network(tmp_path / "felt.onnx")
    with pytest.raises(ConfigError, match="a face model must predict expressed emotions"):
        load(finder=None, faces="whole", face_model=felt)
    with pytest.raises(DetectorError):
        load(finder=None, faces="find", face_model=shown, face_finder=shown)


def test_yunet_is_read_as_opencv_reads_it(shared: Path) -> None:
    """Boxes and confidences of OpenCV 5.0's FaceDetectorYN on the same 640 px input, from 0.7 on."""
    expected = {
        "000000000872.jpg": [[338.37, 118.4, 370.4, 167.03, 0.8502], [211.79, 161.03, 245.97, 219.58, 0.7595]],
        "000000000885.jpg": [
            [624.78, 33.02, 640.0, 57.82, 0.8841],
            [361.38, 203.05, 383.44, 229.2, 0.868],
            [365.46, 99.21, 386.04, 124.52, 0.8327],
        ],
    }
    detector = load_detector(shared / "models" / "yunet_n.onnx")
    for name, faces in expected.items():
        with Image.open(shared / "data" / "coco_persons" / "images" / name) as image:
            detections = detector.detect([image.convert("RGB")])[0]
        np.testing.assert_allclose([box for box, _ in detections], [face[:4] for face in faces], atol=0.05)
        np.testing.assert_allclose([confidence for _, confidence in detections], [face[4] for face in faces], atol=1e-3)


def test_the_embedded_models_on_a_photograph_and_its_mirror_image(shared: Path) -> None:
    """Mirrored boxes, and the same expressions within 0.1."""
    model = load("small", finder=None, faces="find")
    with Image.open(shared / "data" / "coco_persons" / "images" / "000000000872.jpg") as opened:
        image = opened.convert("RGB")
    faces = faces_of(model.predict(image))
    mirrored_faces = faces_of(model.predict(ImageOps.mirror(image)))
    assert faces
    for face in faces:
        mirrored = Box(image.width - face.box.x2, face.box.y1, image.width - face.box.x1, face.box.y2)
        nearest = min(
            mirrored_faces, key=lambda candidate: sum(abs(a - b) for a, b in zip(candidate.box, mirrored, strict=True))
        )
        np.testing.assert_allclose(nearest.box, mirrored, atol=0.1 * (mirrored.x2 - mirrored.x1))
        assert face.expressions is not None
        assert nearest.expressions == pytest.approx(face.expressions, abs=0.1)


def test_groups_without_readable_faces_are_summarised() -> None:
    assert (summarise_faces([]), summarise_faces([None])) == ("no face found", "1 face: 1 too small to tell")


def test_face_models_are_opened_only_on_request() -> None:
    assert load("small", finder=None).face_reader is None
