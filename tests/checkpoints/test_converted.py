"""Converted and saved encoders: timm and uniemox load them, and pre-training starts from them as from the original."""

from pathlib import Path

import pytest
import timm
import timm.data
import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from tests.checkpoints.test_published import HEADS, METHODS, file_of
from uniemox.checkpoints import load_published, load_start
from uniemox.checkpoints.reading import read_weight_file
from uniemox.checkpoints.saving import convert
from uniemox.errors import CheckpointError


@pytest.mark.thorough
@pytest.mark.parametrize("size", [None, 160])
@pytest.mark.parametrize("method", METHODS)
def test_converted_files_load_in_timm_and_here(method: str, size: int | None, golden: Path, tmp_path: Path) -> None:
    path = file_of(golden, method)
    target = tmp_path / "out.safetensors"
    report, line = convert(path, target, heads=HEADS.get(method), image_size=size)
    original = load_published(path, heads=HEADS.get(method), image_size=size)
    x = torch.randn(2, 3, report.image_size, report.image_size)
    again = load_published(target)
    assert again.report.method == method
    # Parameters without training are still reported as new.
    assert again.report.new == original.report.new
    torch.testing.assert_close(again(x), original(x), rtol=0, atol=0)

    # The line may name it.
    import uniemox.checkpoints

    loaded = eval(line, {"timm": timm, "uniemox": uniemox}).eval()
    assert isinstance(loaded, VisionTransformer | Beit | SwinTransformer)
    # These are written with the norm of pre-training.
    is_written_as_start = method in ("mae", "dbot", "siameseim", "tinymim")
    expected = load_start(path, heads=3, image_size=size).eval() if is_written_as_start else original
    torch.testing.assert_close(loaded(x), expected(x), rtol=0, atol=0)

    # Another size is resized by the method's rule, also from the converted file.
    if size is None:
        y = torch.randn(1, 3, 192, 192)
        bigger = load_published(path, heads=HEADS.get(method), image_size=192)
        torch.testing.assert_close(load_published(target, image_size=192)(y), bigger(y), rtol=0, atol=0)


@pytest.mark.parametrize("method", HEADS)
def test_a_converted_file_starts_pre_training_as_the_original_does(method: str, golden: Path, tmp_path: Path) -> None:
    convert(file_of(golden, method), tmp_path / "out.safetensors", heads=HEADS[method])
    original = load_start(file_of(golden, method), heads=HEADS[method]).eval()
    again = load_start(tmp_path / "out.safetensors").eval()
    assert again.report.new == original.report.new
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(again.forward_features(x), original.forward_features(x), rtol=0, atol=0)


def test_only_siameseim_starts_with_a_new_norm(golden: Path, tmp_path: Path) -> None:
    content = read_weight_file(file_of(golden, "mae")).content["model"]
    torch.save({"model": {k: v for k, v in content.items() if not k.startswith("norm.")}}, tmp_path / "less.pth")
    with pytest.raises(CheckpointError, match=r"missing: norm\.weight, norm\.bias"):
        load_start(tmp_path / "less.pth", heads=3)


def test_fixed_position_tables_show_the_method_of_an_unlabelled_encoder(golden: Path, tmp_path: Path) -> None:
    """Also in half precision; MoCo v3's ViT-S has other heads than all others."""
    prefix = "module.base_encoder."
    moco = read_weight_file(file_of(golden, "moco_v3")).content["state_dict"]
    moco = {k.removeprefix(prefix): v for k, v in moco.items() if k.startswith(prefix) and ".head" not in k}
    mae = read_weight_file(file_of(golden, "mae")).content["model"]
    mae = {k: v for k, v in mae.items() if not k.startswith(("decoder", "mask"))}
    online = read_weight_file(file_of(golden, "siameseim")).content["model"]
    online = {k: v for k, v in online.items() if k.split(".")[0] in ("cls_token", "pos_embed", "patch_embed", "blocks")}
    for state, method, container in [
        (moco, "moco_v3", None), (moco, "moco_v3", "model"), (mae, "mae", None), (mae, "mae", "model"),
        (online, "siameseim", "model"),
    ]:  # fmt: skip
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            cast = {name: value.to(dtype) for name, value in state.items()}
            torch.save(cast if container is None else {container: cast}, tmp_path / "encoder.pth")
            assert load_published(tmp_path / "encoder.pth", heads=3).report.method == method


def test_convert_writes_safetensors_only(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"must end in \.safetensors"):
        convert(file_of(golden, "mae"), tmp_path / "out.pth", heads=3)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="can't be written"):
        convert(file_of(golden, "mae"), tmp_path / "file" / "out.safetensors", heads=3)


def test_a_header_is_not_overruled(golden: Path, tmp_path: Path) -> None:
    convert(file_of(golden, "mae"), tmp_path / "mae.safetensors", heads=3)
    load_published(tmp_path / "mae.safetensors", method="mae", heads=3)
    for arguments in ({"method": "dino"}, {"heads": 4}):
        with pytest.raises(CheckpointError, match=f"{next(iter(arguments))}=.* contradicts the file's header"):
            load_published(tmp_path / "mae.safetensors", **arguments)


def test_converted_files_tell_timm_their_pixels(golden: Path, tmp_path: Path) -> None:
    for method, mean in (("mae", 0.485), ("simmim", 0.485), ("beit", 0.5)):
        _, line = convert(file_of(golden, method), tmp_path / "out.safetensors", heads=3)
        data = timm.data.resolve_model_data_config(eval(line, {"timm": timm}))
        assert data["mean"][0] == mean
        assert data["input_size"] == (3, 64, 64)
    other = tmp_path / "other"
    other.touch()
    assert (tmp_path / "out.safetensors").stat().st_mode == other.stat().st_mode
