"""The Python blocks of the README and of the tour run unchanged; their commands exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from tests.drawn import draw_image

ROOT = Path(__file__).resolve().parents[1]
README, TOUR = ((ROOT / name).read_text("utf-8") for name in ("README.md", "docs/tour.md"))


@pytest.mark.long
def test_python_blocks_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder contains a file in the format of MAE's release: the encoder alone, under the key "model"."""
    vit = timm.create_model("vit_base_patch16_224", depth=1, num_classes=0)
    torch.save({"model": vit.state_dict()}, tmp_path / "mae_pretrain_vit_base.pth")
    blocks = re.findall(r"```python\n(.*?)```", README + TOUR, re.DOTALL)
    assert len(blocks) == 5
    shutil.copytree(ROOT / "docs" / "images", tmp_path / "docs" / "images")
    for i in range(40):
        folder = tmp_path / "photos" / ("first", "second")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        draw_image(i).save(folder / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    exec("\n".join(blocks), {})
    output = capsys.readouterr().out
    assert "[('contentment', 0." in output
    assert "scene_reconstruction" in output
    assert "'grad_norm'" in output
    assert "torch.Size([4, 512]) torch.Size([4, 196, 768])" in output
    assert "mae_pretrain_vit_base.pth: mae, 224 px, heads 12" in output


def test_make_targets_and_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z]+)", README)) <= targets
    for command in set(re.findall(r"uniemox (convert|models|bench step)", TOUR)):
        done = subprocess.run(
            [sys.executable, "-c", "from uniemox.cli import main; main()", *command.split(), "--help"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, command


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_relative_links_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), link


def test_files_contain_no_machine_paths() -> None:
    excluded = {"tests/test_readme.py"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".txt", "") and name not in excluded and path.is_file():
            assert not re.search(r"/(home|root|work|Users)/", path.read_text("utf-8")), name
