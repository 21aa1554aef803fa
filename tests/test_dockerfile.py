"""The Dockerfile: its steps one by one, and the container itself where Docker runs."""

import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.serve.process import started
from uniemox.cli.program import add_foreign_commands, app
from uniemox_serve.cli import serve

ROOT = Path(__file__).parents[1]
STEPS = [
    re.match(r"(\w+)\s+(.*)", line).groups()  # type: ignore[union-attr]
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def steps(name: str) -> list[str]:
    return [words for step, words in STEPS if step == name]


def context(folder: Path) -> Path:
    """Copy the files that .dockerignore lets through: all are ignored except rules with !, and some of these again."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split(
        "\n"
    )
    for name in filter(None, tracked):
        is_in = False
        for rule in rules:
            pattern = rule.removeprefix("!")
            if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/"):
                is_in = rule.startswith("!")
        if is_in:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.mark.thorough
def test_docker_context_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    source = context(tmp_path / "src")
    if not source.exists():
        pytest.skip("needs a clone")
    assert not (source / "tests").exists()
    assert not (source / "docs" / "images").exists()
    [install] = [words for words in steps("RUN") if "pip install" in words]
    install_words = shlex.split(install.split("&&")[0])
    assert install_words[-1] == "/src[serve]"
    assert (source / Path(install_words[install_words.index("--constraint") + 1]).name).is_file()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=source, check=True, capture_output=True
    )
    assert len(list((source / "dist").glob("*.whl"))) == 1


def test_container_does_not_run_as_root() -> None:
    [user] = steps("USER")
    assert any(f"useradd --create-home --uid 10001 {user}" in words for words in steps("RUN"))
    assert [step for step, _ in STEPS].index("USER") < [step for step, _ in STEPS].index("ENTRYPOINT")
    assert steps("FROM")[0].endswith("-slim")


@pytest.mark.thorough
def test_entry_point_serves_and_health_check_detects_a_running_server(tmp_path: Path) -> None:
    [entry] = steps("ENTRYPOINT")
    name, *words = json.loads(entry)
    assert name == "uniemox"
    add_foreign_commands(words[0])
    command, bound, _ = app.parse_args(words, exit_on_error=False)
    assert command is serve
    assert bound.arguments["host"] == "0.0.0.0"
    assert str(bound.arguments["port"]) == steps("EXPOSE")[0]
    [check] = steps("HEALTHCHECK")
    [python, *check_words] = json.loads(check.partition("CMD ")[2])
    assert python == "python"
    assert f":{steps('EXPOSE')[0]}/health" in check_words[-1]
    with started(None, tmp_path) as (_, port):
        local_check = [sys.executable, *check_words[:-1], check_words[-1].replace(":8000/", f":{port}/")]
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health").status == 200
        assert subprocess.run(local_check, check=False).returncode == 0
    assert subprocess.run(local_check, check=False, capture_output=True).returncode != 0


def docker(*words: str) -> str:
    """Return what docker prints, without the line break at its end."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reason_without_docker() -> str | None:
    """Return why no container can be built here, or None: it needs a running Docker that has the base image."""
    if shutil.which("docker") is None:
        return "needs Docker"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "needs a running Docker daemon"
    [base] = steps("FROM")
    if subprocess.run(["docker", "pull", base], capture_output=True, check=False).returncode:
        return f"Docker cannot fetch {base}"
    return None


@pytest.mark.long
def test_container_predicts_an_image() -> None:
    if reason := reason_without_docker():
        pytest.skip(reason)
    image = docker("build", "--quiet", str(ROOT))
    container = docker("run", "--detach", "--publish", "127.0.0.1::8000", image)
    try:
        address = docker("port", container, "8000/tcp").splitlines()[0]
        _wait_until_healthy(f"http://{address}/health")
        photo = (ROOT / "docs" / "images" / "cat.jpg").read_bytes()
        request = urllib.request.Request(f"http://{address}/predict", photo, {"Content-Type": "image/jpeg"})
        [answer] = json.load(urllib.request.urlopen(request, timeout=60))
        assert max(answer["scene"], key=answer["scene"].get) == "contentment"
        assert docker("exec", container, "id", "--user") == "10001"
    finally:
        docker("rm", "--force", container)
        docker("image", "rm", image)


def _wait_until_healthy(url: str) -> None:
    """Wait until the server answers, for at most a minute."""
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(0.5)
            continue
        return
    pytest.fail(f"{url} did not answer")
