"""A published start brings its decoder: the layer that makes α and β, and the decoder itself, where they fit."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from tests.networks import load_npz
from tests.runs import Dies, Killed, pretrained, scenes, tiny_pretraining
from uniemox.checkpoints.published import load_start
from uniemox.checkpoints.reading import read_weight_file, state_of
from uniemox.checkpoints.start_decoder import take_decoder
from uniemox.cli.callbacks import ConsoleCallback
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder, sincos_position
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.run import build_encoder_of, build_model, build_model_and_report, pretrain
from uniemox.views.config import MaskConfig

SCENE_ALONE = LossWeights(person_reconstruction=0, contrastive_feature_alignment=0, semantic_visual_alignment=0)
GOLDEN_DECODER = DecoderConfig(width=32, depth=2, heads=4)


def model_of(path: Path, *, decoder: DecoderConfig = GOLDEN_DECODER, ratio: float = 0.75) -> UniEmoX:
    """The scene stream on a golden encoder, with a random decoder."""
    config = ModelConfig(fusion=None, mask=MaskConfig(ratio=ratio), decoder=decoder, losses=SCENE_ALONE)
    torch.manual_seed(1)
    return UniEmoX(load_start(path, heads=3), config)


@pytest.mark.parametrize("percent", [25, 75])
def test_a_start_with_maes_decoder_predicts_what_maes_own_code_predicts(percent: int, golden: Path) -> None:
    """golden/checkpoints/mae_pretrain (facebookresearch/mae, float32, 1e-5); with a fresh decoder it does not."""
    path = golden / "mae_pretrain" / "checkpoint.pth"
    stored = load_npz(golden / "mae_pretrain" / "expected.npz")
    for is_fresh in (False, True):
        model = model_of(path, ratio=percent / 100)
        report = take_decoder(model, str(path), is_fresh=is_fresh)
        with torch.no_grad():
            output = model(stored["x"], scene_noise=stored[f"noise_{percent}"])
        assert output.scene_pred is not None
        pred = stored[f"pred_{percent}"]
        loss = stored[f"loss_{percent}_npl0"]
        assert torch.allclose(output.scene_pred, pred, rtol=1e-5, atol=1e-5) == (not is_fresh)
        assert torch.allclose(output.losses["scene_reconstruction"], loss, rtol=1e-5) == (not is_fresh)
        assert len(report.taken) == (0 if is_fresh else 31)
        assert len(report.new) == (31 if is_fresh else 0)


def test_dbots_start_brings_all_but_its_prediction_layer(golden: Path) -> None:
    """dBOT predicts the teacher's features (decoder_predp), which pixels can't use."""
    path = golden / "dbot" / "checkpoint.pth"
    state = state_of(read_weight_file(path))
    model = model_of(path)
    report = take_decoder(model, str(path))
    assert report.new == ("decoder.pred.weight", "decoder.pred.bias")
    assert report.unfit == ("decoder_predp.weight", "decoder_predp.bias")
    assert len(report.taken) == 29
    tensors = model.state_dict()
    pairs = {
        "embed.weight": "decoder_embed.weight",
        "decoder.mask_token": "mask_token",
        "decoder.blocks.1.attn.qkv.bias": "decoder_blocks.1.attn.qkv.bias",
        "decoder.norm.weight": "decoder_norm.weight",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(tensors[ours], state[theirs])
    assert str(report) == (f"29 tensors of embed and decoder from {path}; new: decoder.pred; not used: decoder_predp")


def test_layers_are_taken_completely_or_not_at_all(golden: Path) -> None:
    """A decoder of another width has nothing but a bias of the same shape, which is not taken alone."""
    path = golden / "mae_pretrain" / "checkpoint.pth"
    model = model_of(path, decoder=DecoderConfig(width=16, depth=2, heads=4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = take_decoder(model, str(path))
    assert report.taken == ()
    assert "decoder_pred.bias" in report.unfit
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    deeper = take_decoder(model_of(path, decoder=DecoderConfig(width=32, depth=3, heads=4)), str(path))
    # Only the third block is new.
    assert {name.split(".")[2] for name in deeper.new} == {"2"}
    shallower = take_decoder(model_of(path, decoder=DecoderConfig(width=32, depth=1, heads=4)), str(path))
    assert shallower.new == ()
    assert all(name.startswith("decoder_blocks.1.") for name in shallower.unfit)


def dbot_file(path: Path, config: PretrainConfig) -> dict[str, torch.Tensor]:
    """A file in dBOT's layout for a tiny run: an encoder, and a decoder of the run's size with drawn weights."""
    size = config.view.size
    decoder = config.model.decoder
    torch.manual_seed(3)
    options: dict[str, Any] = {"embed_dim": 192, "depth": 1, "num_heads": 3, "num_classes": 0}
    state = VisionTransformer(img_size=size, patch_size=8, **options).state_dict()
    state["pos_embed"] = sincos_position(192, (size // 8, size // 8))
    parts = {
        "decoder_embed": nn.Linear(192, decoder.width),
        "decoder_blocks.0": Block(decoder.width, decoder.heads, qkv_bias=True),
        "decoder_norm": nn.LayerNorm(decoder.width),
        "decoder_predp": nn.Linear(decoder.width, 192),
    }
    for prefix, part in parts.items():
        state |= {f"{prefix}.{name}": torch.randn_like(value) for name, value in part.state_dict().items()}
    state["mask_token"] = torch.randn(1, 1, decoder.width)
    torch.save({"model": state}, path)
    return state


class Notes(Dies):
    """Collects the notes of a run, and ends it after a step."""

    def __init__(self, at: int | None) -> None:
        super().__init__(at)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_log_and_config_list_taken_and_new_tensors(tmp_path: Path) -> None:
    config = tiny_pretraining()
    file = tmp_path / "dbot.pth"
    state = dbot_file(file, config)
    config = replace(config, encoder=replace(config.encoder, start=str(file)))
    assert torch.equal(build_model(config, 16).embed.weight, state["decoder_embed.weight"])
    watcher = Notes(at=3)
    with pytest.raises(Killed):
        pretrain(config, scenes(), tmp_path / "run", callback=watcher)
    assert watcher.notes == [f"17 tensors of embed and decoder from {file}; new: decoder.pred; not used: decoder_predp"]
    record = json.loads((tmp_path / "run" / "config.json").read_text())["decoder_start"]
    assert record["source"] == str(file)
    assert record["new"] == ["decoder.pred.weight", "decoder.pred.bias"]
    assert record["unfit"] == ["decoder_predp.weight", "decoder_predp.bias"]
    assert "embed.weight" in record["taken"]
    resumed = Notes(at=None)
    pretrain(config, scenes(), tmp_path / "run", resume=True, callback=resumed)
    # A resumed run has the weights of its checkpoint.
    assert resumed.notes == []
    assert json.loads((tmp_path / "run" / "config.json").read_text())["decoder_start"] == record


def test_fresh_decoder_has_random_weights(tmp_path: Path) -> None:
    config = tiny_pretraining()
    file = tmp_path / "dbot.pth"
    state = dbot_file(file, config)
    config = replace(config, encoder=replace(config.encoder, start=str(file)), fresh_decoder=True)
    fresh = build_model(config, 16)
    assert not torch.equal(fresh.embed.weight, state["decoder_embed.weight"])
    # Xavier initialisation.
    bound = (6 / (192 + config.model.decoder.width)) ** 0.5
    assert fresh.embed.weight.abs().max() <= bound
    assert take_decoder(fresh, str(file), is_fresh=True).source == "--fresh-decoder"


@pytest.mark.parametrize("kind", ["run", "encoder", "timm", "none"])
def test_starts_without_a_decoder_are_reported(kind: str, golden: Path) -> None:
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=1, num_heads=3)
    model = UniEmoX(encoder, ModelConfig(fusion=None, decoder=GOLDEN_DECODER, losses=SCENE_ALONE))
    starts = {
        "run": str(pretrained()),
        "encoder": str(golden / "tinymim" / "checkpoint.pth"),
        "timm": "timm:vit_tiny_patch16_224",
        "none": None,
    }
    report = take_decoder(model, starts[kind])
    assert report.taken == ()
    assert len(report.new) == 31
    assert str(report).startswith("embed and decoder start from random weights: ")


def test_the_whole_model_of_a_run_brings_its_decoder() -> None:
    weights = pretrained() / "model.safetensors"
    model = build_model(tiny_pretraining(), 16)
    report = take_decoder(model, str(weights))
    assert report.new == ()
    tensors = read_weight_file(weights).content
    assert all(torch.equal(model.state_dict()[name], tensors[name]) for name in report.taken)


def test_check_reports_decoder_tensors_without_weights(tmp_path: Path) -> None:
    config = tiny_pretraining()
    file = tmp_path / "dbot.pth"
    dbot_file(file, config)
    config = replace(config, encoder=replace(config.encoder, start=str(file)))
    with torch.device("meta"):
        _, report = build_model_and_report(config, 8, build_encoder_of(config))
    assert str(report) == f"17 tensors of embed and decoder from {file}; new: decoder.pred; not used: decoder_predp"


def test_the_note_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleCallback() as console:
        console.note("29 tensors of embed and decoder from dbot.pth")
    assert "29 tensors of embed and decoder from dbot.pth" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["mae", "dino", "moco_v3", "dbot", "siameseim", "tinymim"])
def test_every_published_file_can_be_searched_for_a_decoder(method: str, golden: Path) -> None:
    """DINO's file holds two networks, teacher and student, and no tensors of its own."""
    path = golden / method / "checkpoint.pth"
    model = UniEmoX(
        load_start(path, heads={"moco_v3": 4}.get(method, 3)),
        ModelConfig(fusion=None, decoder=GOLDEN_DECODER, losses=SCENE_ALONE),
    )
    report = take_decoder(model, str(path))
    assert bool(report.taken) == (method in ("mae", "dbot"))
