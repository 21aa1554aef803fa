"""Files of the hub, from a local server that speaks its protocol: hashes are checked, errors are clear."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from uniemox.errors import HubError
from uniemox.hub import fetch

CONTENT = b"weights of a detector" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """`good.onnx` is what its header says, `evil.onnx` is not, `small.txt` has no sha256."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if not self.path.startswith("/team/finder/resolve/") or name not in ("good.onnx", "evil.onnx", "small.txt"):
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT if name != "evil.onnx" else CONTENT[::-1]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{"b" * 40 if name == "small.txt" else SHA256}"')
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
        "import sys; from uniemox.hub import fetch; from uniemox.errors import UniemoxError\n"
        "try: print(fetch(sys.argv[1]))\n"
        "except UniemoxError as error: print(type(error).__name__, error)"
    )
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_a_file_is_had_once_and_then_without_the_network(address: str, tmp_path: Path) -> None:
    for name in ("hub:team/finder/good.onnx", f"hub:team/finder/good.onnx@main#sha256={SHA256}"):
        path = fetch_in_process(name, address, tmp_path)
        assert Path(path).read_bytes() == CONTENT
    path = fetch_in_process("hub:team/finder/good.onnx", "http://127.0.0.1:9", tmp_path)
    assert Path(path).read_bytes() == CONTENT


def test_what_is_not_what_it_should_be_is_refused(address: str, tmp_path: Path) -> None:
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


def test_what_is_not_there_is_said(address: str, tmp_path: Path) -> None:
    said = fetch_in_process("hub:team/finder/none.onnx", address, tmp_path)
    assert said.startswith("HubError hub:team/finder/none.onnx can't be downloaded: ")


@pytest.mark.parametrize(
    "name", ["hub:", "hub:team", "hub:team/finder", "hub:team/finder/a#sha256=12", "team/finder/a"]
)
def test_names_are_checked(name: str) -> None:
    with pytest.raises(HubError, match="expected hub:owner/repository/file"):
        fetch(name)
