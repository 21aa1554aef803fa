"""CLIP as a zero-shot classifier over words equals the cosines of its teacher's features."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import draw_image
from tests.networks import clip_folder
from uniemox.errors import ConfigError, TeacherError
from uniemox.labels import MIKELS
from uniemox.predict.opening import load
from uniemox.predict.prediction import Prediction
from uniemox.predict.views import scene_view
from uniemox.teacher.sources import ClipTeacher
from uniemox.teacher.zero_shot import PROMPT, ZeroShotClip, open_clip


def test_probabilities_are_softmax_of_scaled_cosines(golden: Path, tmp_path: Path, tiny_clip: ClipTeacher) -> None:
    words = ["happy", "Sad ", "very bored"]
    image = draw_image(3)
    predictor = load(f"clip:local-dir:{clip_folder(golden, tmp_path)}", finder=None, words=words)
    prediction = predictor.predict(image)
    assert isinstance(prediction, Prediction)
    assert tuple(prediction.scene) == ("happy", "sad", "very bored")
    assert (prediction.kind, prediction.label_set) == ("evoked", "custom")
    pixels = torch.from_numpy(scene_view(image, 64, 1.0))[None] / 255
    image_features = tiny_clip.image_features(pixels)[0]
    texts = tiny_clip.text_features([PROMPT.format(word=word) for word in prediction.scene])
    cosines = torch.nn.functional.cosine_similarity(image_features[None], texts)
    expected = (tiny_clip.model.logit_scale.exp() * cosines).softmax(dim=0)
    np.testing.assert_allclose(list(prediction.scene.values()), expected.numpy(), atol=1e-5)
    assert predictor.network.maps(np.zeros((1, 3, 64, 64), np.float32)) is None
    with pytest.raises(ConfigError, match="has no scores"):
        predictor.predict(image, coverage=0.9)


def test_without_words_the_labels_are_mikels(golden: Path, tmp_path: Path) -> None:
    predictor = load(f"clip:local-dir:{clip_folder(golden, tmp_path)}", finder=None)
    assert (predictor.labels, predictor.label_set) == (MIKELS.labels, "mikels")
    prediction = predictor.predict(draw_image(1), labels="polarity")
    assert isinstance(prediction, Prediction)
    assert sum(prediction.scene.values()) == pytest.approx(1)
    # Survey and search need these.
    features = predictor.embed([draw_image(1), draw_image(2)])
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("words", [[], ["happy"], ["happy", "happy"], ["happy", ""]])
def test_other_lists_of_words_are_refused(tiny_clip: ClipTeacher, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected at least two words"):
        ZeroShotClip(tiny_clip, words)


def test_a_missing_clip_is_refused() -> None:
    with pytest.raises(TeacherError):
        open_clip("clip:local-dir:/nowhere", ["a", "b"])


def test_fingerprint_depends_on_words_weights_and_structure(
    golden: Path, tmp_path: Path, tiny_clip: ClipTeacher
) -> None:
    def opened(name: str, words: list[str], **changes: bool) -> ZeroShotClip:
        (tmp_path / name).mkdir()
        return ZeroShotClip(ClipTeacher.load(f"local-dir:{clip_folder(golden, tmp_path / name, **changes)}"), words)

    first = ZeroShotClip(tiny_clip, ["a", "b"]).fingerprint
    same = opened("same", ["a", "b"])
    other = opened("other", ["a", "b"])
    assert same.fingerprint == first
    with torch.no_grad():
        other.clip.model.visual.proj.mul_(2)
    others = {
        engine.fingerprint for engine in (other, opened("c", ["a", "c"]), opened("quick", ["a", "b"], quick_gelu=True))
    }
    assert len(others | {first}) == 4
