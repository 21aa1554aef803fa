"""`pretrain --preset paper` as a GPU node runs it, in miniature: real layouts on disk, two processes, kill, resume."""

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import timm
import torch

from tests.data.tree import EMOTIONS, emoset
from tests.networks import clip_folder
from tests.runs import PLAIN_OUTPUT, losses, scenes, tiny_pretraining
from tools.commands import start_command
from uniemox.checkpoints.published import load_start
from uniemox.cli import app
from uniemox.errors import CheckpointError, TeacherError
from uniemox.model.encoder import sincos_position
from uniemox.pretrain.config import EncoderConfig, TeacherConfig
from uniemox.pretrain.run import pretrain

ROOT = Path(__file__).parents[2]
SIZE = 32
STEPS = 12


def mae_file(path: Path) -> Path:
    """A small ViT in the layout of MAE's published pre-training."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, depth=1, num_classes=0)
    state = vit.state_dict() | {"mask_token": torch.zeros(1, 1, 16), "decoder_pred.weight": torch.zeros(768, 16)}
    state["pos_embed"] = sincos_position(192, (SIZE // 16, SIZE // 16))
    torch.save({"model": state}, path)
    return path


def start_both(words: list[str], folder: Path) -> list[BaseProcess]:
    """Two processes that train together, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = PLAIN_OUTPUT | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    started = []
    for rank in range(2):
        environment = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)}
        log = folder / f"log{rank}.txt"
        started.append(start_command(words, out=log, err=log, environment=environment))
    return started


@pytest.mark.thorough
def test_preset_paper_runs_on_two_processes_and_resumes(golden: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    clip = tmp_path / "clip"
    clip.mkdir()
    notes = {"brightness": 0.4, "colorfulness": 0.6, "scene": "beach", "object": ["Person"]}
    annotations = {f"{name}/{i}": notes | {"emotion": name} for i, name in enumerate(2 * list(EMOTIONS))}
    words = f"""pretrain --preset paper --data emoset:{emoset(tmp_path / "EmoSet", annotations)} --out {run}
        --encoder.start {mae_file(tmp_path / "mae.pth")} --teacher.source clip:local-dir:{clip_folder(golden, clip)}
        --model.decoder.width 16 --model.decoder.depth 1 --model.decoder.heads 2 --view.size {SIZE} --batch-size 8
        --schedule.epochs {STEPS // 2} --schedule.warmup-epochs 1 --save.every-steps 1 --hardware.device cpu
        --hardware.no-compile --hardware.workers 1""".split()
    first = start_both(words, tmp_path)
    until = time.monotonic() + 120
    while (
        not (run / "checkpoints" / "step-00000004").exists()
        and time.monotonic() < until
        and any(process.is_alive() for process in first)
    ):
        time.sleep(0.01)
    for process in first:
        assert process.pid is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    log = (tmp_path / "log0.txt").read_text()
    assert f"on 2 x cpu, each with 1 loading; this machine has {os.cpu_count()} cores" in log
    assert 4 <= len(losses(run)) < STEPS, log

    for process in start_both([*words, "--resume"], tmp_path):
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "log0.txt").read_text()
    steps = losses(run)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(line["contrastive_feature_alignment"] > 0 for line in steps)
    before = load_start(tmp_path / "mae.pth")
    after = load_start(run / "encoder.safetensors")
    moved = (before.blocks[0].attn.qkv.weight - after.blocks[0].attn.qkv.weight).abs().max()
    assert 0 < moved < 0.1


@pytest.mark.parametrize("missing", ["encoder.start", "teacher.source"])
def test_missing_weights_are_reported_before_images_are_hashed(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node without network the run ends in seconds, not after an hour of hashing."""
    monkeypatch.setattr("uniemox.pretrain.run.write_seen", lambda *_: pytest.fail("hashed first"))
    config = tiny_pretraining()
    if missing == "encoder.start":
        config = replace(config, encoder=EncoderConfig(start=str(tmp_path / "none.pth")))
    else:
        config = replace(config, teacher=TeacherConfig(source="clip:local-dir:/nowhere", view="augmented"))
    with pytest.raises((CheckpointError, TeacherError), match=r"none\.pth|/nowhere"):
        pretrain(config, scenes(), tmp_path / "run")


def scripts(language: str) -> list[str]:
    """Blocks of docs/scaling.md in a language."""
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_cluster_scripts_are_valid(tmp_path: Path) -> None:
    """Bash reads each, and every option that they give to pretrain is one."""
    bash_scripts = scripts("bash")
    assert [name in "\n".join(bash_scripts) for name in ("torchrun", "srun", "docker run")] == [True] * 3
    for script in bash_scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)
        for line in script.replace("\\\n", " ").splitlines():
            if " pretrain " not in line:
                continue
            words = line.split(" pretrain ")[1].split()
            command, _, _ = app.parse_args(["pretrain", *words], print_error=False, exit_on_error=False)
            assert command.__name__ == "pretrain"
    [recipe] = scripts("dockerfile")
    steps = [line.split()[0] for line in recipe.splitlines()]
    assert steps == ["FROM", "RUN", "COPY", "RUN", "ENTRYPOINT"]
    assert "constraints.txt" in recipe
    assert (ROOT / "constraints.txt").is_file()
