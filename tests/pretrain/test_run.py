"""Complete tiny runs of pre-training: reproducible bits, errors that keep checkpoints, every ablation."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import nn
from torch._dynamo.utils import counters

from tests.data.tree import says
from tests.drawn import class_folders
from tests.networks import clip_folder
from tests.runs import (
    CPU,
    L1,
    SCENES,
    Dies,
    Killed,
    Told,
    losses,
    pretrain_words,
    pretrained,
    scenes,
    sha256,
    teacher,
    tiny_pretraining,
    torchrun,
    two_forked,
)
from tests.teacher.test_fitted import architecture
from uniemox.checkpoints.published import load_start
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError, EncoderError, NonFiniteLossError, TeacherError, UniemoxError
from uniemox.losses.config import LossWeights
from uniemox.pretrain.config import EncoderConfig, PretrainConfig, TeacherConfig
from uniemox.pretrain.run import build_model, build_trainer, plan_run, pretrain
from uniemox.teacher.features import StoredTeacher
from uniemox.teacher.fitted import FittedTeacher
from uniemox.training.callback import Callback
from uniemox.training.config import OptimizerConfig, SaveConfig, ScheduleConfig
from uniemox.training.counting import tensor_bytes
from uniemox.training.state import Checkpoints
from uniemox.views.config import MaskConfig

NAMES = set(LossWeights.__slots__)
RECONSTRUCTION = {"scene_reconstruction", "person_reconstruction"}
ENCODER = "encoder.safetensors"


class Watcher(Callback):
    """Calls something after a step."""

    def __init__(self, at: int, call: Any) -> None:
        self.at = at
        self.call = call

    def step(self, done: int, values: Mapping[str, float]) -> None:
        if done == self.at:
            self.call()


def model(**changes: Any) -> PretrainConfig:
    """Two steps with a changed model."""
    config = tiny_pretraining(schedule=ScheduleConfig(epochs=1, warmup_epochs=0))
    return replace(config, model=replace(config.model, **changes))


def weights(**changes: float) -> LossWeights:
    return LossWeights(**changes)


def test_a_run_leaves_an_encoder_that_timm_loads(tmp_path: Path) -> None:
    run = pretrained()
    options = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "num_classes": 0}
    plain = timm.create_model("vit_tiny_patch16_224", **options, checkpoint_path=str(run / ENCODER))
    ours = load_start(run / ENCODER)
    model_tensors = safetensors.torch.load_file(run / "model.safetensors")
    for name, value in plain.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])
        assert torch.equal(value, model_tensors[f"encoder.{name}"])
    initial = build_model(tiny_pretraining(), 16).state_dict()
    moved = [name for name, value in model_tensors.items() if not torch.equal(value, initial[name])]
    assert len(moved) > 0.9 * sum(1 for name in model_tensors if "pos_embed" not in name)


def test_every_step_logs_every_loss() -> None:
    lines = losses(pretrained())
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["epoch"] for line in lines] == [0.5, 1.0, 1.5, 2.0]
    for line in lines:
        assert set(line) == {"step", "epoch", "lr", "total", "grad_norm", *NAMES}
        assert line["total"] == pytest.approx(sum(line[name] for name in NAMES), rel=1e-5)
    # Warm-up begins at 0.
    assert lines[0]["lr"] == 0
    with Image.open(pretrained() / "pictures" / "reconstruction-00000004.png") as sheet:
        assert sheet.size == (8 * 34 - 2, 6 * 34 - 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_settings_give_the_same_bits(workers: int, tmp_path: Path) -> None:
    config = tiny_pretraining()
    pretrain(replace(config, hardware=replace(config.hardware, workers=workers)), scenes(), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(pretrained())
    assert sha256(tmp_path / "run" / ENCODER) == sha256(pretrained() / ENCODER)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_killed_run_resumes_to_the_same_bits(at: int, tmp_path: Path) -> None:
    """Before the first checkpoint, between two, after the last step; the teacher isn't asked again."""
    out = tmp_path / "run"
    teacher_file = tmp_path / "teacher.npz"
    shutil.copy(teacher(), teacher_file)
    config = tiny_pretraining(teacher=TeacherConfig(source=f"stored:{teacher_file}", view="whole"))
    with pytest.raises(Killed):
        pretrain(config, scenes(), out, callback=Dies(at))
    teacher_file.unlink()
    callback = Told()
    pretrain(config, scenes(), out, resume=True, callback=callback)
    assert callback.plan is not None
    # The run died before the save of its step.
    assert callback.plan.done == (at - 1) // 2 * 2
    assert losses(out) == losses(pretrained())
    assert sha256(out / ENCODER) == sha256(pretrained() / ENCODER)


@pytest.mark.thorough
def test_killed_run_with_teacher_in_every_step_resumes_to_the_same_bits(golden: Path, tmp_path: Path) -> None:
    """A run of an earlier version, which kept the features of its texts in a folder, resumes too."""
    source = f"clip:local-dir:{clip_folder(golden, tmp_path)}"
    config = tiny_pretraining(teacher=TeacherConfig(source=source, view="augmented"))
    pretrain(config, scenes(), tmp_path / "whole")
    for earlier in (False, True):
        out = tmp_path / f"{earlier}"
        with pytest.raises(Killed):
            pretrain(config, scenes(), out, callback=Dies(3))
        if earlier:
            (out / "teacher_features.npz").unlink()
            (out / "text_features").mkdir()
        pretrain(config, scenes(), out, resume=True)
        assert losses(out) == losses(tmp_path / "whole")
        assert sha256(out / ENCODER) == sha256(tmp_path / "whole" / ENCODER)


def test_resuming_a_finished_run_writes_the_same_encoder(tmp_path: Path) -> None:
    shutil.copytree(pretrained(), tmp_path / "run")
    (tmp_path / "run" / ENCODER).unlink()
    pretrain(tiny_pretraining(), scenes(), tmp_path / "run", resume=True)
    assert sha256(tmp_path / "run" / ENCODER) == sha256(pretrained() / ENCODER)
    with pytest.raises(ConfigError, match="add --resume"):
        pretrain(tiny_pretraining(), scenes(), tmp_path / "run")


def test_accumulated_batches_see_the_same_images_and_masks(tmp_path: Path) -> None:
    """Without L2, whose rows are shorter then, the losses are those of the whole batch. Float32, 1e-5."""
    config = model(losses=weights(contrastive_feature_alignment=0.0))
    runs = []
    for accumulation in (1, 2, 4):
        out = tmp_path / str(accumulation)
        pretrain(replace(config, accumulation=accumulation), scenes(), out)
        runs.append(losses(out))
    for run in runs[1:]:
        for line, expected in zip(run, runs[0], strict=True):
            assert line == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.thorough
@pytest.mark.long
def test_two_processes_give_the_losses_of_one(tmp_path: Path) -> None:
    """All four losses, texts gathered over both processes, two parts a step. Float32, 1e-5.

    Steps of one part: `test_two_processes_give_one_processs_losses_and_gradients`.
    """
    done = torchrun(*pretrain_words(tmp_path / "two", accumulation=2))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "on 2 x cpu" in done.stderr
    pretrain(tiny_pretraining(accumulation=2), scenes(), tmp_path / "one")
    losses_of_two = losses(tmp_path / "two")
    losses_of_one = losses(tmp_path / "one")
    assert len(losses_of_two) == len(losses_of_one) == 4
    for line, other in zip(losses_of_two, losses_of_one, strict=True):
        assert line == pytest.approx(other, rel=1e-5, abs=1e-7)
    # Divided over the processes (FSDP2) it is the same to 1e-6, and resumes from a checkpoint to the same bits.
    words = [*pretrain_words(tmp_path / "sharded", accumulation=2), "--sharded"]
    status, log = two_forked(tmp_path, *words)
    assert status == 0, log[-2000:]
    assert "the network sharded over them" in " ".join(log.split())
    assert "Warning" not in log
    for line, other in zip(losses(tmp_path / "sharded"), losses_of_two, strict=True):
        assert line == pytest.approx(other, rel=1e-6, abs=1e-7)
    weights = (tmp_path / "sharded" / "model.safetensors").read_bytes()
    assert len(weights) == (tmp_path / "two" / "model.safetensors").stat().st_size
    for name in ("model.safetensors", "encoder.safetensors"):
        (tmp_path / "sharded" / name).unlink()
    shutil.rmtree(tmp_path / "sharded" / "checkpoints" / "step-00000004")
    status, log = two_forked(tmp_path, *words, "--resume")
    assert status == 0, log[-2000:]
    assert (tmp_path / "sharded" / "model.safetensors").read_bytes() == weights


ABLATIONS: dict[str, tuple[PretrainConfig, set[str]]] = {
    "L1": (model(losses=L1), RECONSTRUCTION),
    "L1 of the scene": (model(losses=replace(L1, person_reconstruction=0.0)), {"scene_reconstruction"}),
    "L1 and L2": (model(losses=weights(semantic_visual_alignment=0.0)), NAMES - {"semantic_visual_alignment"}),
    "L1 and L3": (model(losses=weights(contrastive_feature_alignment=0.0)), NAMES - {"contrastive_feature_alignment"}),
    "L2 and L3": (model(losses=weights(scene_reconstruction=0.0, person_reconstruction=0.0)), NAMES - RECONSTRUCTION),
    "no person": (model(fusion=None, losses=weights(person_reconstruction=0.0)), NAMES - {"person_reconstruction"}),
    "no fusion": (model(fusion=None), NAMES),
    **{f"fusion {name}": (model(fusion=name), NAMES) for name in ("static", "dynamic", "attention")},
    "norm_pix": (model(norm_pix=True), NAMES),
    "mask 0.25": (model(mask=MaskConfig(ratio=0.25)), NAMES),
    "mask 0.85": (model(mask=MaskConfig(ratio=0.85)), NAMES),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_runs(name: str, tmp_path: Path) -> None:
    config, expected = ABLATIONS[name]
    pretrain(config, scenes(), tmp_path / "run")
    lines = losses(tmp_path / "run")
    assert len(lines) == 2
    for line in lines:
        assert set(line) - {"step", "epoch", "lr", "total", "grad_norm"} == expected
        assert line["total"] == pytest.approx(sum(line[name] for name in expected), rel=1e-5)
    has_teacher = not expected <= RECONSTRUCTION
    assert (tmp_path / "run" / "teacher_features.npz").exists() == has_teacher
    assert (tmp_path / "run" / "pictures").exists() == bool(expected & RECONSTRUCTION)


@pytest.mark.parametrize("view", ["whole", "augmented"])
def test_with_emotion_off_removes_the_emotion_from_texts(view: Any, tmp_path: Path) -> None:
    first_losses = {}
    for with_emotion in (True, False):
        out = tmp_path / f"{with_emotion}"
        config = TeacherConfig(source=f"stored:{teacher()}", view=view, with_emotion=with_emotion)
        pretrain(replace(model(), teacher=config), scenes(), out)
        first_losses[with_emotion] = losses(out)[0]["contrastive_feature_alignment"]
        with np.load(out / "teacher_features.npz") as file:
            assert any("overall emotion" in text for text in file["texts"]) == with_emotion
            assert len(file["image_keys"]) == (SCENES if view == "whole" else 0)
    assert first_losses[True] != first_losses[False]


def test_run_can_start_from_another_runs_encoder(tmp_path: Path) -> None:
    config = tiny_pretraining()
    start = replace(config, encoder=replace(config.encoder, start=str(pretrained() / ENCODER)))
    initial = build_model(start, 16).encoder.state_dict()
    assert all(
        torch.equal(value, initial[name]) for name, value in load_start(pretrained() / ENCODER).state_dict().items()
    )
    pretrain(replace(start, schedule=ScheduleConfig(epochs=1, warmup_epochs=0)), scenes(), tmp_path / "run")
    assert losses(tmp_path / "run")[0]["total"] != losses(pretrained())[0]["total"]


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "is_named"), [("vit_tiny_patch16_224", True), ("deit_tiny_patch16_224", False)])
def test_a_start_with_another_normalisation_is_named(tmp_path: Path, name: str, is_named: bool) -> None:
    """DeiT has ImageNet's; the other network has a mean of 0.5."""
    torch.save(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "vit.pth")
    start = f"timm:{name}@{tmp_path / 'vit.pth'}"
    config = tiny_pretraining()
    config = replace(
        config, encoder=replace(config.encoder, start=start), schedule=ScheduleConfig(epochs=1, warmup_epochs=0)
    )
    notes: list[str] = []

    class Notes(Callback):
        def note(self, line: str) -> None:
            notes.append(line)

    pretrain(config, scenes(), tmp_path / "run", callback=Notes())
    assert any("another mean and deviation than ImageNet's" in line for line in notes) == is_named


def test_missing_images_stop_the_run_and_the_checkpoint_stays(tmp_path: Path) -> None:
    """Put back, the run goes on to the bits of one that was never disturbed."""
    photos = class_folders(tmp_path / "photos", each=8)
    away = tmp_path / "away"
    data = open_data(f"folder:{photos}")
    config = replace(tiny_pretraining(max_unreadable=3), model=model(losses=L1).model)
    pretrain(config, data, tmp_path / "whole")
    out = tmp_path / "run"
    with pytest.raises(DataError, match=says("8 images can't be read, more than the 3", "No such file")):
        pretrain(config, data, out, callback=Watcher(3, lambda: photos.rename(away)))
    saved = Checkpoints(out, 2).saved()
    assert [path.name for path in saved] == ["step-00000002"]
    away.rename(photos)
    pretrain(config, data, out, resume=True)
    assert sha256(out / ENCODER) == sha256(tmp_path / "whole" / ENCODER)


def test_batch_without_readable_images_is_an_error(tmp_path: Path) -> None:
    photos = class_folders(tmp_path / "photos", each=4)
    data = open_data(f"folder:{photos}")
    shutil.rmtree(photos)
    with pytest.raises(DataError, match="none of 8 images of a batch can be read"):
        pretrain(model(losses=L1), data, tmp_path / "run")
    # The teacher has features of this sample's text.
    described = scenes().samples[0]
    samples = [replace(described, key=sample.key, image=sample.image) for sample in data.samples]
    with pytest.raises(TeacherError, match="none of 8 images can be read"):
        pretrain(model(), replace(scenes(), samples=samples), tmp_path / "other")


def test_non_finite_loss_stops_the_run_and_the_checkpoint_stays(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = tiny_pretraining(optimizer=OptimizerConfig(base_lr=1e36))
    with pytest.raises(NonFiniteLossError, match=r"is (nan|inf); no weight was changed"):
        pretrain(config, scenes(), out)
    assert [path.name for path in Checkpoints(out, 2).saved()] == ["step-00000002"]


def test_one_batch_and_one_step_are_enough(tmp_path: Path) -> None:
    config = replace(model(), schedule=ScheduleConfig(epochs=0.001, warmup_epochs=0), batch_size=1)
    pretrain(config, replace(scenes(), samples=scenes().samples[:1]), tmp_path / "run")
    assert [line["step"] for line in losses(tmp_path / "run")] == [1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 17}, ConfigError, "16 samples do not fill a batch of 17"),
        ({"teacher": TeacherConfig(source="clipp:x")}, TeacherError, "'clipp:x' is not a teacher"),
        ({"encoder": replace(tiny_pretraining().encoder, name="resnet18")}, EncoderError, "resnet18"),
        ({"view": replace(tiny_pretraining().view, size=33)}, UniemoxError, "33"),
    ],
)
def test_impossible_runs_are_refused(
    changes: dict[str, Any], error: type[UniemoxError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pretrain(tiny_pretraining(**changes), scenes(), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"accumulation": 0}, "accumulation must be at least 1, got 0"),
        ({"batch_size": 8, "accumulation": 3}, "accumulation 3 must divide batch_size 8 evenly"),
        ({"diagnose_every": -1}, "diagnose_every must be at least 0"),
        ({"diagnose_every": 5, "sharded": True}, "and 0 with sharded"),
        (
            {"encoder": EncoderConfig(start="dbot.pth"), "batch_size": 1024},
            r"base_lr 0.001 times batch_size 1024 / 256 is a learning rate of 0.004; .* --optimizer.base-lr 0.00025 ",
        ),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_bad_settings_are_refused_by_name(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**values)
    PretrainConfig(batch_size=1024, encoder=EncoderConfig(start="dbot.pth"), force_lr=True)


def test_gradient_norms_of_each_loss_are_logged_every_n_steps_and_change_nothing(tmp_path: Path) -> None:
    pretrain(tiny_pretraining(diagnose_every=2), scenes(), tmp_path / "diagnosed")
    lines = losses(tmp_path / "diagnosed")
    names = {f"grad_norm_{name}" for name in NAMES}
    assert [names <= set(line) for line in lines] == [step % 2 == 0 for step in range(len(lines))]
    assert all(value > 0 for value in (lines[0][name] for name in names))
    logged = [json.loads(line) for line in (pretrained() / "metrics.jsonl").read_text().splitlines()]
    assert all(-1 <= line["fused_cosine"] <= 1 and line["offset_share"] > 0 for line in logged)
    assert {line["clipped"] for line in logged} <= {0.0, 1.0}
    assert sha256(pretrained() / ENCODER) == sha256(tmp_path / "diagnosed" / ENCODER)


def test_nothing_is_compiled_again_after_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the plan, which looks at two images, nor for the reconstructions that a checkpoint draws."""
    compile_module = nn.Module.compile
    counts = []
    monkeypatch.setattr(nn.Module, "compile", lambda block: compile_module(block, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    count = Callback()
    count.start = count.step = lambda *_: counts.append(counters["stats"]["unique_graphs"])
    config = tiny_pretraining(
        batch_size=4, schedule=ScheduleConfig(epochs=2.5, warmup_epochs=0), hardware=replace(CPU, compile=True)
    )
    pretrain(replace(config, save=SaveConfig(every_steps=3)), scenes(), tmp_path / "run", callback=count)
    torch._dynamo.reset()
    assert len(counts) == 11
    assert counts[0] == 0
    assert 0 < counts[1] == counts[-1]


def test_keep_finished_off_deletes_checkpoints(tmp_path: Path) -> None:
    config = tiny_pretraining(save=SaveConfig(every_steps=1, keep_every=3, keep_finished=False))
    encoder = pretrain(config, scenes(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]
    before = encoder.stat().st_mtime_ns
    shutil.copytree(tmp_path / "run/checkpoints/step-00000003", tmp_path / "run/checkpoints/step-00000004")
    assert pretrain(config, scenes(), tmp_path / "run", resume=True) == encoder
    # The checkpoint that a kill left is deleted.
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]
    # Nothing is written again.
    assert encoder.stat().st_mtime_ns == before


def test_the_plan_counts_a_teacher_that_runs_in_every_step(tmp_path: Path) -> None:
    """A fitted teacher is itself the network, unlike CLIP, which holds one."""
    config = tiny_pretraining()
    network = FittedTeacher(architecture("a"), {})
    stored = StoredTeacher(teacher())
    trainer = build_trainer(config, scenes(), tmp_path, build_model(config, stored.width), Callback())
    alone = plan_run(config, scenes(), trainer, stored).memory_bytes
    running = plan_run(config, scenes(), trainer, StoredTeacher(teacher(), of_images=network)).memory_bytes
    assert running - alone == tensor_bytes(network) > 0
