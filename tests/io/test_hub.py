"""Files of the hub, from a local server that speaks its protocol: hashes are checked, errors are clear."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
from safetensors.torch import save

from tests.networks import clip_folder
from uniemox.errors import HubError
from uniemox.io.hub import fetch

CONTENT = b"weights of a detector" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40
OUTSIDE = "../../../../outside"
FILES = ("good.onnx", "evil.onnx", "small.txt", "climbs.onnx")
ETAGS = {"small.txt": "b" * 40, "climbs.onnx": OUTSIDE}


@cache
def weights() -> bytes:
    """Of timm's test_vit."""
    return save(timm.create_model("test_vit").state_dict())


class Hub(BaseHTTPRequestHandler):
    """`good.onnx` is what its header says, `evil.onnx` is not, `small.txt` has no sha256; and a network of timm's.

    The hash of `climbs.onnx` is a path, and so is the commit in the answer for a missing file.
    """

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        name = self.path.rsplit("/", 1)[-1]
        is_network = self.path.startswith("/timm/test_vit.r160_in1k/resolve/") and name == "model.safetensors"
        is_finder = self.path.startswith("/team/finder/resolve/") and name in FILES
        if not is_network and not is_finder:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", OUTSIDE)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if is_network:
            body = weights()
        else:
            body = CONTENT if name != "evil.onnx" else CONTENT[::-1]
        sha256 = hashlib.sha256(weights()).hexdigest() if is_network else SHA256
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{ETAGS.get(name, sha256)}"')
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def fetch_in_process(name: str, address: str, cache: Path) -> str:
    """Path or error of a fetch; the hub's address is read when its package is imported."""
    code = (
        "import sys; from uniemox.io.hub import fetch; from uniemox.errors import UniemoxError\n"
        "try: print(fetch(sys.argv[1]))\n"
        "except UniemoxError as error: print(type(error).__name__, error)"
    )
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_a_file_is_downloaded_once_and_then_read_without_network(address: str, tmp_path: Path) -> None:
    for name in ("hub:team/finder/good.onnx", f"hub:team/finder/good.onnx@main#sha256={SHA256}"):
        path = fetch_in_process(name, address, tmp_path)
        assert Path(path).read_bytes() == CONTENT
    path = fetch_in_process("hub:team/finder/good.onnx", "http://127.0.0.1:9", tmp_path)
    assert Path(path).read_bytes() == CONTENT


def test_a_file_with_another_or_an_unknown_hash_is_refused(address: str, tmp_path: Path) -> None:
    assert "HubError hub:team/finder/evil.onnx: its sha256 is" in fetch_in_process(
        "hub:team/finder/evil.onnx", address, tmp_path / "another cache"
    )
    other = f"hub:team/finder/good.onnx#sha256={'0' * 64}"
    assert f"its sha256 is {SHA256}, not {'0' * 64}" in fetch_in_process(other, address, tmp_path)
    assert "gives no sha256 of this file; add #sha256=" in fetch_in_process(
        "hub:team/finder/small.txt", address, tmp_path
    )
    small = f"hub:team/finder/small.txt#sha256={SHA256}"
    assert Path(fetch_in_process(small, address, tmp_path)).read_bytes() == CONTENT


@pytest.mark.parametrize("file", ["climbs.onnx", "none.onnx"])
def test_hashes_from_a_server_are_not_used_as_paths(address: str, tmp_path: Path, file: str) -> None:
    output = fetch_in_process(f"hub:team/finder/{file}", address, tmp_path / "a" / "home")
    assert output.startswith(f"HubError hub:team/finder/{file} can't be downloaded: ")
    assert not list(tmp_path.rglob("outside*"))


def test_a_missing_file_is_reported(address: str, tmp_path: Path) -> None:
    output = fetch_in_process("hub:team/finder/none.onnx", address, tmp_path)
    assert output.startswith("HubError hub:team/finder/none.onnx can't be downloaded: ")


@pytest.mark.thorough
@pytest.mark.long
def test_the_weights_of_a_preset_are_fetched_once_and_then_read_without_network(
    address: str, golden: Path, tmp_path: Path
) -> None:
    """On a login node first, with `uniemox fetch`; on the nodes by the variables that it prints."""
    clip = tmp_path / "clip"
    clip.mkdir()
    code = f"""
import sys, os
from dataclasses import replace
from uniemox.pretrain import presets
small = presets.demo()
small = replace(small, encoder=replace(small.encoder, start="timm:test_vit"), optimizer=presets.best().optimizer,
                teacher=replace(small.teacher, source="clip:local-dir:{clip_folder(golden, clip)}"))
presets.PRESETS = {{"best": lambda: small}}
from uniemox.cli.weights import fetch
from pathlib import Path
fetch(preset="best", to=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
"""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *map(str, words)]
        changed = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")} | environment
        return subprocess.run(command, env=changed, capture_output=True, text=True, check=False, timeout=120)

    first = run(tmp_path / "weights", HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    assert "fetching timm:test_vit" in first.stderr.splitlines()
    variables = f"HF_HUB_CACHE={tmp_path / 'weights'} HF_HUB_OFFLINE=1"
    assert first.stdout == f"{variables} uniemox pretrain --preset best --data KIND:PATH --out RUN\n"
    offline = dict(word.split("=", 1) for word in variables.split())
    # Only the folder has them.
    assert list((tmp_path / "weights").rglob("model.safetensors"))
    assert not list(tmp_path.glob("home/**/*.safetensors"))
    assert run(HF_ENDPOINT="http://127.0.0.1:9", **offline).returncode == 0


@pytest.mark.parametrize(
    "name", ["hub:", "hub:team", "hub:team/finder", "hub:team/finder/a#sha256=12", "team/finder/a"]
)
def test_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(HubError, match="expected hub:owner/repository/file"):
        fetch(name)


def test_a_path_out_of_the_repository_is_refused() -> None:
    with pytest.raises(HubError, match=r"can't be downloaded: .*\.\."):
        fetch("hub:team/finder/../../x")
