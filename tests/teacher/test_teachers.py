"""Teachers: CLIP against stored features, towers of timm and ONNX, files of stored features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import Tensor

from tests.io.test_onnx_sessions import endless
from tests.networks import clip_folder, load_npz
from tests.runs import scenes
from uniemox.errors import TeacherError
from uniemox.io import onnx_sessions
from uniemox.teacher.features import StoredTeacher, save_features, store_features
from uniemox.teacher.opening import open_timm_tower
from uniemox.teacher.sources import ClipTeacher, OnnxImageTower


class CountingTeacher:
    """Teacher whose features follow from the lengths of texts, and which records the texts."""

    def __init__(self) -> None:
        self.width = 4
        self.texts: list[str] = []

    def image_features(self, pixels: Tensor, keys: list[str]) -> Tensor:
        return pixels.flatten(1)[:, : self.width]

    def text_features(self, texts: list[str]) -> Tensor:
        self.texts += texts
        return torch.tensor([[len(text) + i / 7 for i in range(self.width)] for text in texts])


def unnormalised(images: Tensor, teacher: ClipTeacher) -> Tensor:
    """Pixels in the teacher's input scale that its normalisation turns into these images."""
    visual = teacher.model.visual
    images = images.double()
    mean, std = (images.new_tensor(value).view(3, 1, 1) for value in (visual.image_mean, visual.image_std))
    return images * std + mean


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_clip_equals_stored_features(quick_gelu: bool, golden: Path, tmp_path: Path) -> None:
    """golden/checkpoints/clip (open_clip 3.3.0, float32): 1e-5, because threads and processors round differently.

    The stored images are normalised already: they are brought back to pixels in float64 first."""
    teacher = ClipTeacher.load(f"local-dir:{clip_folder(golden, tmp_path, quick_gelu=quick_gelu)}")
    path = golden / "clip" / "expected.npz"
    tag = "_quickgelu" if quick_gelu else ""
    stored = load_npz(path)
    with np.load(path) as file:
        texts = [str(text) for text in file["texts"]]
    image = teacher.image_features(unnormalised(stored["images"], teacher))
    torch.testing.assert_close(image, stored[f"image_features{tag}"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(teacher.text_features(texts), stored[f"text_features{tag}"], rtol=1e-5, atol=1e-5)
    assert torch.equal(teacher.tokenizer(texts), stored["tokens"])
    assert teacher.width == 16


def test_clip_is_frozen_cuts_long_texts_and_takes_any_size(tiny_clip: ClipTeacher) -> None:
    assert not any(parameter.requires_grad for parameter in tiny_clip.model.parameters())
    assert not tiny_clip.model.training
    long = "word " * 500
    assert torch.equal(tiny_clip.text_features([long]), tiny_clip.text_features([long + "more"]))
    pixels = torch.rand(2, 3, 90, 120, requires_grad=True)
    features = tiny_clip.image_features(pixels)
    assert features.shape == (2, 16)
    assert not features.requires_grad


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("ViT-B-999", "openai", "no model 'ViT-B-999'"),
        ("ViT-B-16", "nowhere/clip.pt", "nowhere/clip.pt"),
        ("local-dir:/nowhere", "", "/nowhere"),
    ],
)
def test_an_unknown_clip_is_refused(name: str, weights: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        ClipTeacher.load(name, weights)


def test_a_clip_without_weights_is_refused(golden: Path, tmp_path: Path) -> None:
    folder = clip_folder(golden, tmp_path)
    (folder / "open_clip_pytorch_model.bin").unlink()
    with pytest.raises(TeacherError, match="weights"):
        ClipTeacher.load(f"local-dir:{folder}")


def test_timm_tower_with_real_weights_distinguishes_images(shared: Path) -> None:
    from tests.networks import images_of

    weights = shared / "models" / "mobilenetv2_100.imagenet_features.safetensors"
    tower = open_timm_tower(f"timm:mobilenetv2_100@{weights}")
    paths = sorted((shared / "data" / "flickr8k" / "images").iterdir())[:6]
    pixels = images_of(paths, 224) / 255
    features = tower.image_features(pixels)
    assert features.shape == (6, tower.width) == (6, 1280)
    near = tower.image_features(images_of(paths, 224, box=(0.02, 0.02, 0.98, 0.98)) / 255)
    similar = torch.nn.functional.normalize(near) @ torch.nn.functional.normalize(features).T
    assert (similar.argmax(1) == torch.arange(6)).all()


def test_timm_tower_refuses_unknown_networks_and_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="no model 'resnet_nope'"):
        open_timm_tower("timm:resnet_nope")
    with pytest.raises(TeacherError, match="there is no file"):
        open_timm_tower(f"timm:resnet18@{tmp_path}/no.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(TeacherError, match="resnet18"):
        open_timm_tower(f"timm:resnet18@{tmp_path}/other.safetensors")


def test_timm_tower_takes_files_with_a_classifier(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=5).eval()
    save_file(network.state_dict(), tmp_path / "classifier.safetensors")
    tower = open_timm_tower(f"timm:resnet18@{tmp_path}/classifier.safetensors")
    pixels = torch.rand(2, 3, *tower.size)
    expected = network.forward_head(network.forward_features((pixels - 0.5) / 0.2), pre_logits=True)
    tower.mean = (0.5,) * 3
    tower.std = (0.2,) * 3
    torch.testing.assert_close(tower.image_features(pixels), expected, rtol=1e-4, atol=1e-4)


def test_teachers_refuse_malformed_files(golden: Path, tmp_path: Path) -> None:
    for i, content in enumerate([b"", b"<html>", b"\x80\x02}q\x00."]):
        (tmp_path / f"bad{i}.pth").write_bytes(content)
        with pytest.raises(TeacherError, match="resnet18"):
            open_timm_tower(f"timm:resnet18@{tmp_path}/bad{i}.pth")
        folder = tmp_path / str(i)
        folder.mkdir()
        (clip_folder(golden, folder) / "open_clip_pytorch_model.bin").write_bytes(content)
        with pytest.raises(TeacherError, match="could not be loaded"):
            ClipTeacher.load(f"local-dir:{folder}")


def onnx_mean(path: Path, batch: int | str, height: int | str = 8) -> Path:
    """A network that gives the mean of each colour channel."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, height, 8])
    feature = helper.make_tensor_value_info("feature", TensorProto.FLOAT, [batch, 3])
    node = helper.make_node("ReduceMean", ["image", "axes"], ["feature"], keepdims=0)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph([node], "mean", [image], [feature], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 2])
def test_onnx_tower_with_any_batch(batch: int | str, tmp_path: Path) -> None:
    tower = OnnxImageTower(onnx_mean(tmp_path / "mean.onnx", batch), mean=(0, 0, 0), std=(1, 1, 0.5))
    pixels = torch.rand(5, 3, 8, 8)
    expected = pixels.mean((2, 3)) * torch.tensor([1, 1, 2.0])
    torch.testing.assert_close(tower.image_features(pixels), expected)
    assert tower.width == 3


def test_onnx_tower_refuses_other_files_and_networks(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(TeacherError, match="no ONNX network"):
        OnnxImageTower(tmp_path / "text.onnx")
    with pytest.raises(TeacherError, match="there is no file"):
        OnnxImageTower(tmp_path / "no.onnx")
    with pytest.raises(TeacherError, match="H and W fixed"):
        OnnxImageTower(onnx_mean(tmp_path / "open.onnx", "n", "height"))
    with pytest.raises(TeacherError, match=r"features of shape \(N, C\)"):
        OnnxImageTower(shared / "models" / "yolox_nano.onnx")


def test_an_onnx_tower_that_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_sessions, "MAX_RUN_S", 0.5)
    with pytest.raises(TeacherError, match=r"more than 0.5 s and was stopped"):
        OnnxImageTower(endless(tmp_path / "endless.onnx", (1, 3, 8, 8)))


def stored_file(path: Path) -> Path:
    save_features(
        path,
        image_keys=["a.jpg", "b.jpg"],
        image_features=torch.tensor([[1.0, 2], [3, 4]]),
        texts=["A photo.", "Ein Bild.", ""],
        text_features=torch.arange(6.0).reshape(3, 2),
    )
    return path


def test_stored_features_are_looked_up_by_key_and_text(tmp_path: Path) -> None:
    teacher = StoredTeacher(stored_file(tmp_path / "features.npz"))
    images = teacher.image_features(torch.zeros(3, 3, 4, 4), ["b.jpg", "a.jpg", "b.jpg"])
    assert images.tolist() == [[3, 4], [1, 2], [3, 4]]
    assert teacher.text_features(["", "A photo."]).tolist() == [[4, 5], [0, 1]]
    with pytest.raises(TeacherError, match=r"features\.npz.*image 'c\.jpg'"):
        teacher.image_features(torch.zeros(1, 3, 4, 4), ["c.jpg"])
    with pytest.raises(TeacherError, match="text 'other'"):
        teacher.text_features(["other"])


def test_stored_features_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    good = {
        "image_keys": ["a"],
        "image_features": torch.zeros(1, 2),
        "texts": ["t"],
        "text_features": torch.zeros(1, 2),
    }
    for change, message in [
        ({"image_keys": ["a", "b"]}, r"image names \(2,\)"),
        ({"text_features": torch.zeros(1, 3)}, "2 wide"),
        ({"text_features": torch.full((1, 2), float("nan"))}, "finite"),
    ]:
        with pytest.raises(TeacherError, match=message):
            save_features(tmp_path / "bad.npz", **good | change)
    texts = ["a" * 2**20, *map(str, range(300))]
    with pytest.raises(TeacherError, match="a text has 1,048,576 characters, too many"):
        save_features(tmp_path / "bad.npz", **good | {"texts": texts, "text_features": torch.zeros(301, 2)})
    for keys, width in ((np.zeros(10**6, [("a", "<U0")])["a"], 2), (np.arange(9).astype(str), 0)):
        arrays = {"image_keys": keys, "image_features": np.zeros((len(keys), width), np.float32)}
        np.savez(tmp_path / "none.npz", **arrays, texts=np.array(["t"]), text_features=np.zeros((1, width), np.float32))
        with pytest.raises(TeacherError, match="names or features are empty"):
            StoredTeacher(tmp_path / "none.npz")
    twice = {"texts": ["t", "t"], "text_features": torch.zeros(2, 2)}
    with pytest.raises(TeacherError, match="a text occurs twice"):
        save_features(tmp_path / "bad.npz", **good | twice)
    for name, content in [("text.npz", b"no archive"), ("empty.npz", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TeacherError, match=name):
            StoredTeacher(tmp_path / name)
    np.savez(tmp_path / "pickled.npz", image_keys=np.array([object()]))
    with pytest.raises(TeacherError, match=r"pickled\.npz"):
        StoredTeacher(tmp_path / "pickled.npz")
    with pytest.raises(TeacherError, match=r"no\.npz"):
        StoredTeacher(tmp_path / "no.npz")
    content = stored_file(tmp_path / "complete.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(TeacherError, match=r"cut\.npz"):
        StoredTeacher(tmp_path / "cut.npz")


def test_a_teacher_without_texts_is_refused_before_it_sees_an_image(tmp_path: Path) -> None:
    class Imageless(CountingTeacher):
        def text_features(self, texts: Sequence[str]) -> torch.Tensor:
            raise TeacherError("no text encoder")

        def image_features(self, pixels: torch.Tensor, keys: Sequence[str]) -> torch.Tensor:
            raise AssertionError

    with pytest.raises(TeacherError, match="no text encoder"):
        store_features(Imageless(), "t", scenes().samples[:2], tmp_path / "f.npz", texts=["a"])


def test_stored_texts_and_a_teacher_of_images(tmp_path: Path) -> None:
    teacher = CountingTeacher()
    path = tmp_path / "new" / "texts.npz"
    texts = [f"{i:03} a" for i in range(100)]
    progress: list[tuple[str, int, int]] = []
    assert (
        store_features(teacher, "clip:x", (), path, texts=texts, on_progress=lambda *call: progress.append(call)) == 0
    )
    assert teacher.texts == texts
    assert progress == [("computing the teacher's text features", done, 100) for done in (64, 100)]
    both = StoredTeacher(path, teacher)
    assert torch.equal(both.text_features(texts[::-1]), CountingTeacher().text_features(texts[::-1]))
    pixels = torch.rand(2, 3, 4, 4)
    assert torch.equal(both.image_features(pixels, []), pixels.flatten(1)[:, :4])
    assert (both.width, both.text_features([]).shape, teacher.texts) == (4, (0, 4), texts)
    with pytest.raises(TeacherError, match="no features for the text 'b'"):
        both.text_features(["b"])
