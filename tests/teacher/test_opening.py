"""Teachers and image towers by name, and features stored for many runs."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.data.tree import says
from tests.networks import clip_folder
from tests.runs import uniemox_here as uniemox
from tests.teacher.test_fitted import QUICK, architecture, colours
from uniemox.data.prompts import distinct_texts
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import TeacherError
from uniemox.teacher.features import StoredTeacher, save_features
from uniemox.teacher.fitted import FittedTeacher
from uniemox.teacher.fitting import fit_teacher
from uniemox.teacher.opening import open_teacher, open_timm_tower, teacher_width
from uniemox.teacher.sources import TimmImageTower


def test_teachers_by_name(golden: Path, tmp_path: Path) -> None:
    FittedTeacher(architecture("a"), {}).save(tmp_path / "fitted")
    assert open_teacher(f"fitted:{tmp_path}/fitted").width == 8
    save_features(
        tmp_path / "f.npz",
        image_keys=["a"],
        image_features=torch.ones(1, 3),
        texts=["A photo."],
        text_features=torch.ones(1, 3),
    )
    stored = open_teacher(f"stored:{tmp_path}/f.npz", torch.device("cpu"))
    assert isinstance(stored, StoredTeacher)
    assert stored.text_features(["A photo."]).tolist() == [[1, 1, 1]]
    clip = open_teacher(f"clip:local-dir:{clip_folder(golden, tmp_path)}")
    assert clip.text_features(["A photo."]).shape == (1, 16)


def test_image_towers_by_name(tmp_path: Path) -> None:
    import timm

    from tests.teacher.test_teachers import onnx_mean

    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    for source in (f"timm:test_resnet@{tmp_path}/w.safetensors", f"onnx:{onnx_mean(tmp_path / 'mean.onnx', 'n')}"):
        teacher = open_teacher(source)
        assert teacher.width
        assert teacher.image_features(torch.rand(2, 3, 8, 8), ["", ""]).shape == (2, teacher.width)
        with pytest.raises(TeacherError, match="no text encoder"):
            teacher.text_features(["a"])


def test_a_tower_has_the_pixels_of_its_training(tmp_path: Path) -> None:
    """A checkpoint of timm's training script names them, and --init reads them."""
    import timm

    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.4, 0.5]}
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    content = {"arch": "test_resnet", "state_dict": state, "args": argparse.Namespace(**pixels)}
    torch.save(content, tmp_path / "last.pth.tar")
    tower = open_timm_tower(f"timm:test_resnet@{tmp_path / 'last.pth.tar'}")
    assert {"mean": list(tower.mean), "std": list(tower.std)} == pixels


def test_several_towers_are_concatenated(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    networks = [timm.create_model("test_resnet", num_classes=0).eval() for _ in range(2)]
    for i, network in enumerate(networks):
        save_file(network.state_dict(), tmp_path / f"{i}.safetensors")
    source = f"timm:test_resnet@{tmp_path}/0.safetensors,timm:test_resnet?mean=0.5&std=0.5@{tmp_path}/1.safetensors"
    teacher = open_timm_tower(source)
    pixels = torch.rand(2, 3, *teacher.size)
    first = TimmImageTower(networks[0]).image_features(pixels)
    with torch.no_grad():
        second = networks[1]((pixels - 0.5) / 0.5)  # with pixels of its own
    torch.testing.assert_close(teacher.image_features(pixels), torch.cat([first, second], dim=1), rtol=1e-4, atol=1e-5)
    config = replace(QUICK, image_size=None, image_tower=source, epochs=1, batch_size=16)
    fitted = fit_teacher(colours(tmp_path), config, tmp_path / "out")
    for i in range(2):
        (tmp_path / f"{i}.safetensors").unlink()  # the folder is all that is needed
    loaded = FittedTeacher.load(tmp_path / "out")
    torch.testing.assert_close(loaded.image_features(pixels), fitted.image_features(pixels))
    with pytest.raises(TeacherError, match="can't be loaded"):
        open_timm_tower(source)
    with pytest.raises(TeacherError, match="expected an image tower"):
        open_timm_tower("timm:test_resnet,onnx:x")


def test_features_of_a_teacher_are_stored_by_the_command(tmp_path: Path) -> None:
    teacher = fit_teacher(colours(tmp_path), replace(QUICK, epochs=1), tmp_path / "teacher")
    words = ["teacher", "store", "--teacher", f"fitted:{tmp_path}/teacher", "--data", "synthetic:8", "--out"]
    assert uniemox(*words, tmp_path / "new" / "f.npz").returncode == 0
    stored = StoredTeacher(tmp_path / "new" / "f.npz")
    data = synthetic(8)
    assert set(stored.image_rows) == {sample.key for sample in data.samples}
    texts = distinct_texts(data.samples, with_emotion=False)
    torch.testing.assert_close(stored.text_features(texts), teacher.text_features(texts))
    assert uniemox(*words, tmp_path / "g.npz", "--images-alone").returncode == 0
    assert StoredTeacher(tmp_path / "g.npz").text_rows == {}


@pytest.mark.parametrize("source", ["", "clip", "clip:", "nothing:x", "runs/teacher"])
def test_unknown_kinds_are_refused(source: str) -> None:
    with pytest.raises(TeacherError, match=says(f"{source!r} is not a teacher", "fitted:FOLDER")):
        open_teacher(source)


def test_width_of_a_published_clip_model_needs_no_weights() -> None:
    assert teacher_width("clip:ViT-B-16-quickgelu@openai") == 512
    for open_it in (teacher_width, open_teacher):
        with pytest.raises(TeacherError, match=r"has no weights 'gone\.pt', and there is no such file; it has openai"):
            open_it("clip:ViT-B-16@gone.pt")
