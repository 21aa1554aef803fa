"""Files are read without running code from them; what is cut off or something else is refused with file and remedy."""

import argparse
import datetime
import os
import pickle
import random
import types
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from uniemox.checkpoints import load_published
from uniemox.checkpoints.reading import read_weight_file
from uniemox.errors import CheckpointError, UniemoxError

STATE = {"cls_token": torch.zeros(1, 1, 8), "pos_embed": torch.zeros(1, 5, 8)}


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("inside", ["top", "model", "namespace"])
def test_code_in_a_file_never_runs(inside: str, is_zip: bool, tmp_path: Path) -> None:
    mark = tmp_path / "code ran"
    path = tmp_path / "bad.pth"
    content = {
        "top": Payload(mark),
        "model": {"model": STATE | {"x": Payload(mark)}},
        "namespace": {"model": STATE, "args": argparse.Namespace(hook=Payload(mark))},
    }[inside]
    torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(CheckpointError, match=r"bad\.pth was refused: reading it would run code \(posix\.mkdir\)"):
        load_published(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [datetime.datetime(2026, 1, 1), Path("x"), random.Random(0), torch.nn.Linear(2, 2), range],
    ids=lambda value: type(value).__name__,
)
def test_objects_of_other_classes_are_refused(value: object, tmp_path: Path) -> None:
    torch.save({"model": STATE, "extra": value}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"odd\.pth was refused"):
        read_weight_file(tmp_path / "odd.pth")


def test_settings_in_official_containers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """argparse.Namespace as MAE and others save it, yacs nodes as SimMIM does, without yacs installed."""

    class CfgNode(dict):
        """As pickled by yacs: a dictionary with attributes of its own."""

    CfgNode.__module__ = "yacs.config"
    CfgNode.__qualname__ = "CfgNode"
    module = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    node = CfgNode(DATA=CfgNode(IMG_SIZE=192))
    node.__dict__["__immutable__"] = True
    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(__import__("sys").modules, "yacs.config", module)
        torch.save({"model": STATE, "config": node, "args": argparse.Namespace(lr=0.1)}, tmp_path / "good.pth")
    content = read_weight_file(tmp_path / "good.pth").content
    assert content["config"]["DATA"]["IMG_SIZE"] == 192
    assert content["args"].lr == 0.1


@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 0.99, 0.999])
def test_files_that_are_cut_off_are_refused(share: float, kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("cut.safetensors" if kind == "safetensors" else "cut.pth")
    weights = torch.randn(200, 200)
    message = r"cut\.pth is cut off or not a checkpoint.*fetch it again"
    if kind == "safetensors":
        save_file({"w": weights}, path)
        message = r"cut\.safetensors is not a whole safetensors file"
    else:
        torch.save({"model": {"w": weights}}, path, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=message):
        read_weight_file(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>Sign in", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"PK\x03\x04 no archive", "not a checkpoint"),
        (b"\x80\x02}q\x00.", "no weights|not a checkpoint"),
        (pickle.dumps([1, 2, 3]), "not a checkpoint|holds a list"),
        (os.urandom(5000), "not a checkpoint"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\": nonsense}", "safetensors"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{", "safetensors"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "thing.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        load_published(tmp_path / "thing.pth")
    assert "thing.pth" in str(error.value)


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "nothing.pth", "there is no file")):
        with pytest.raises(CheckpointError, match=message):
            read_weight_file(path)


@pytest.mark.parametrize(
    "header",
    ["[]", "not json", '{"method": "made up"}', "{}", "[" * 100_000, '{"method": "mae", "heads": "3"}',
     '{"method": "mae", "heads": -3}', '{"method": "mae", "heads": 1.5}', '{"method": "mae", "heads": 3, "new": 5}'],
)  # fmt: skip
def test_a_malformed_header_of_ours_is_refused(header: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "ours.safetensors", {"uniemox": header})
    with pytest.raises(CheckpointError):
        load_published(tmp_path / "ours.safetensors")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A tiny MAE file in three containers."""
    import timm

    folder = tmp_path_factory.mktemp("fuzz")
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=1, num_heads=3, num_classes=0)
    content = {"model": vit.state_dict(), "args": argparse.Namespace(model="mae"), "epoch": 3}
    torch.save(content, folder / "a.pth")
    torch.save(content, folder / "b.pth", _use_new_zipfile_serialization=False)
    save_file(vit.state_dict(), folder / "c.safetensors")
    return folder, [path.read_bytes() for path in sorted(folder.iterdir())]


@settings(max_examples=120)
@given(data=st.data())
def test_mangled_files_give_an_encoder_or_our_error(data: st.DataObject, small_files: tuple[Path, list[bytes]]) -> None:
    folder, files = small_files
    content = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        # The first bytes, which hold names, shapes and code.
        position = data.draw(st.integers(0, min(len(content) - 1, 4000)))
        content[position] = data.draw(st.integers(0, 255))
    (folder / "mangled").write_bytes(bytes(content))
    try:
        load_published(folder / "mangled", heads=3)
    except UniemoxError as error:
        assert "mangled" in str(error)


ODD = st.sampled_from(
    [
        *(
            torch.zeros(shape)
            for shape in [(), (0,), (3,), (1, 0, 48), (1, 2), (48, 3, 0, 0), (0, 3, 16, 16), (48, 768)]
        ),
        *(torch.zeros(52, 0), torch.zeros(4, 3), torch.zeros(2, 2).to_sparse(), torch.zeros(2, 2, device="meta")),
        *(torch.zeros(1, 17, 48, dtype=torch.complex64), torch.zeros(2, 2, dtype=torch.int64)),
        *(torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8), 3, "text", None),
    ]
)
METHODS = ("mae", "dino", "moco_v3", "beit", "simmim", "simmim_swin", "cae", "siameseim", "tinymim", "mixmae", "dbot")
CONFIGS = ({"DATA": {"IMG_SIZE": "128"}}, {"DATA": {"IMG_SIZE": -1}}, {"DATA": 3}, None)


@pytest.mark.thorough
@settings(max_examples=60)
@given(data=st.data())
def test_odd_tensors_give_an_encoder_or_our_error(data: st.DataObject, golden: Path, small_files: tuple) -> None:
    """Any tensor of an official file replaced by one of another rank, size or kind, or renamed."""
    path = small_files[0] / "odd.pth"
    method = data.draw(st.sampled_from(METHODS))
    content = dict(read_weight_file(golden / method / "checkpoint.pth").content)
    key = {"moco_v3": "state_dict", "dino": "teacher"}.get(method, "model")
    state = dict(content[key])
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(map(str, state))))
        new = data.draw(st.sampled_from([name, name.replace(".1.", ".90000."), name.replace("0", "7"), "other"]))
        state[new] = data.draw(ODD | st.just(state.get(name)))
    config = data.draw(st.sampled_from([content.get("config"), *CONFIGS]))
    torch.save({**content, key: state, "config": config}, path)
    heads = data.draw(st.sampled_from([None, 3]))
    size = data.draw(st.sampled_from([None, 64, 96]))
    try:
        load_published(path, heads=heads, image_size=size)
    except UniemoxError as error:
        assert "odd.pth" in str(error)


def rewritten(golden: Path, method: str, path: Path, changes: dict[str, torch.Tensor]) -> Path:
    """An official file with other or further tensors."""
    content = dict(read_weight_file(golden / method / "checkpoint.pth").content)
    torch.save({**content, "model": {**content["model"], **changes}}, path)
    return path


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("mae", {"cls_token": torch.zeros(1).expand(10**11)}, "cls_token has shape .100000000000,., and not as many"),
        ("mae", {"cls_token": torch.zeros(10**9, 0)}, "cls_token has shape .1000000000, 0., and not as many"),
        ("mae", {"patch_embed.proj.weight": torch.zeros(10**5, 3, 1, 1)}, "3 blocks from 100000 wide have"),
        ("mae", {"patch_embed.proj.weight": torch.zeros(48, 3, 10**5, 1)}, "the file holds"),
        ("mae", {"blocks.0.mlp.fc1.weight": torch.zeros(10**6, 1)}, "the file holds"),
        ("mae", {"blocks.9000.norm1.weight": torch.zeros(48)}, r"missing: blocks\.\d"),
        ("beit", {"blocks.9000.norm1.weight": torch.zeros(48)}, r"missing: blocks\.\d"),
        ("simmim_swin", {"layers.0.blocks.9000.norm1.weight": torch.zeros(48)}, r"missing: layers\.0\.blocks\.\d"),
        ("simmim_swin", {"layers.9000.blocks.0.norm1.weight": torch.zeros(48)}, r"missing: layers\.\d"),
    ],
)
def test_names_and_shapes_cannot_claim_any_amount_of_memory(
    golden: Path, tmp_path: Path, method: str, changes: dict[str, torch.Tensor], says: str
) -> None:
    """A tensor that repeats one number, tensors without numbers, and networks larger than their file."""
    prefix = {"simmim_swin": "encoder."}.get(method, "")
    path = rewritten(golden, method, tmp_path / "odd.pth", {prefix + name: value for name, value in changes.items()})
    with pytest.raises(CheckpointError, match=rf"odd\.pth.*{says}"):
        load_published(path, method=method, heads=3 if method == "mae" else None)


def test_an_image_size_of_ten_thousand_px_is_refused(golden: Path, tmp_path: Path) -> None:
    content = dict(read_weight_file(golden / "simmim_swin" / "checkpoint.pth").content)
    torch.save({**content, "config": {"DATA": {"IMG_SIZE": 9984}}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"IMG_SIZE must be a whole number from 1 to 2048, got 9984"):
        load_published(tmp_path / "odd.pth")
