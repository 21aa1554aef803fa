"""Films whose names or contents would send FFmpeg to another file or machine."""

import os
import re
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.drawn import draw_image
from tests.predict.test_film import RATE
from uniemox.predict.film import Frame, read_film

av = pytest.importorskip("av", reason="needs PyAV: pip install 'uniemox[video]'")
STRACE = shutil.which("strace")


@pytest.fixture
def ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ok.mp4 in the working folder: two seconds."""
    monkeypatch.chdir(tmp_path)
    with av.open("ok.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width = 96
        stream.height = 64
        stream.pix_fmt = "yuv420p"
        for place in range(2 * RATE):
            container.mux(stream.encode(av.VideoFrame.from_image(draw_image(place % 3).resize((96, 64)))))
        container.mux(stream.encode())
    return tmp_path / "ok.mp4"


@pytest.fixture
def listener() -> socket.socket:
    """A server on loopback that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        yield server


def was_called(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


def frames_of(name: str) -> list[Frame]:
    return list(read_film(name, 1))


@pytest.mark.parametrize(
    "name", ["http:127.0.0.1:{port}?x.mp4", "tcp:127.0.0.1:{port}?x.mkv", "http:/127.0.0.1:{port}/x.mp4"]
)
def test_a_name_that_is_an_address_is_read_as_a_file(ok: Path, listener: socket.socket, name: str) -> None:
    name = name.format(port=listener.getsockname()[1])
    (ok.parent / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ok, ok.parent / name)
    assert [frame.error for frame in frames_of(name)] == ["", ""]
    assert not was_called(listener)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["concat:ok.mp4|ok.mp4.mp4", "subfile,,start,0,end,9,,:ok.mp4", "fd:0.mp4", "-i.mp4"])
def test_a_name_that_is_a_protocol_is_read_as_a_file(ok: Path, name: str) -> None:
    (ok.parent / name).write_bytes(np.random.default_rng(0).bytes(3000))
    [only] = frames_of(name)
    assert only.image is None
    shutil.copy(ok, ok.parent / name)
    assert [frame.error for frame in frames_of(name)] == ["", ""]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.mkv", "ffconcat version 1.0\nfile ok.mp4\n"),
        ("a.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nok.mp4\n#EXT-X-ENDLIST\n"),
        ("a.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n"),
        ("a.avi", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n"),
        ("a.mpg", "<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:{port}/</BaseURL></MPD>"),
    ],
)
def test_a_playlist_opens_no_other_file(ok: Path, listener: socket.socket, name: str, text: str) -> None:
    (ok.parent / name).write_text(text.format(port=listener.getsockname()[1]))
    [only] = frames_of(name)
    assert only.image is None
    assert "can't be read as a film" in only.error
    assert not was_called(listener)


def test_an_animation_that_is_postscript_is_not_run(ok: Path) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file's name."""
    (ok.parent / "a.gif").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    )
    [only] = frames_of("a.gif")
    assert "cannot identify" in only.error


@pytest.mark.skipif(STRACE is None, reason="needs strace: apt-get install strace")
def test_the_system_calls_of_a_film_are_about_that_film_alone(ok: Path) -> None:
    (ok.parent / "http:127.0.0.1:9?x.mp4").write_bytes(ok.read_bytes())
    (ok.parent / "b.mkv").write_text("ffconcat version 1.0\nfile ok.mp4\n")
    code = "import sys; from uniemox.predict.film import read_film; [list(read_film(one, 1)) for one in sys.argv[1:]]"
    words = f"{STRACE} -f -qq -e trace=openat,open,connect,socket,execve -o trace {sys.executable} -c".split()
    assert os.spawnv(os.P_WAIT, str(STRACE), [*words, code, "http:127.0.0.1:9?x.mp4", "b.mkv"]) == 0
    trace = Path("trace").read_text()
    assert not re.findall(r"sa_family=AF_INET.*", trace)
    opened = {os.path.basename(path) for path in re.findall(r'open(?:at)?\(.*?"([^"]*)"', trace)}
    assert "http:127.0.0.1:9?x.mp4" in opened
    assert "b.mkv" in opened
    assert "ok.mp4" not in opened
