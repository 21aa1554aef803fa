"""The command as users run it: killed and resumed, stopped, and with a key that must not be in any output."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.ask.server import Request, Response, error, says, says_with_probabilities, serving
from tests.data.tree import put
from tests.images import draw, save
from tests.runs import uniemox_here
from uniemox.cli.settings import read_key
from uniemox.errors import ConfigError

KEY = "sk-secret-0987654321-must-not-be-seen"
COMMAND = (
    "import sys; from cyclopts import CommandCollisionError; from uniemox import cli\n"
    "from uniemox_ask.cli import ask\n"
    "try: cli.app.command(ask)\n"
    "except CommandCollisionError: pass\n"
    "cli.main()"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for i in range(24):
        path = root / ("awe", "fear")[i % 2] / f"{i}.jpg"
        put(root, str(path.relative_to(root)))
        path.write_bytes(save(draw(24, 18, seed=i), "JPEG"))
    return root


def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMMAND, "ask", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def ask(*arguments: object, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def ask_here(*arguments: object) -> tuple[int, str, str]:
    done = uniemox_here("ask", *arguments)
    return done.returncode, done.stdout, done.stderr


def count_settled(requests: Sequence[Request]) -> int:
    """Return the number of requests once the server has read all that a killed process had sent."""
    count = -1
    while count != len(requests):
        count = len(requests)
        time.sleep(0.5)
    return count


def lines(out: Path) -> list[dict[str, Any]]:
    """Return the complete rows of answers.jsonl, without its header."""
    path = out / "answers.jsonl"
    if not path.exists():
        return []
    _, *rows = path.read_bytes().rpartition(b"\n")[0].split(b"\n")
    return [json.loads(row) for row in rows]


def wait_for(out: Path, count: int) -> None:
    for _ in range(6000):
        if len(lines(out)) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} answers in a minute")


def test_resume_after_kill_sends_no_question_twice(photos: Path, tmp_path: Path) -> None:
    """SIGKILL twice while answers come: no image is asked about again once its answer is in the file."""
    arguments = ["--data", f"folder:{photos}", "--model", "m", "--out", tmp_path, "--images", 24, "--json"]
    with serving(lambda request, number: Response(200, says("**Awe**.").body, wait_s=0.05)) as endpoint:
        saved: set[str] = set()
        for count in (3, 12):
            before = len(endpoint.requests)
            process = start(*arguments, "--endpoint", endpoint.url)
            wait_for(tmp_path, count)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            saved_before = saved
            saved = {line["key"] for line in lines(tmp_path)}
            assert count_settled(endpoint.requests) - before <= 24 - len(saved_before)
        before = len(endpoint.requests)
        code, out, err = ask(*arguments, "--endpoint", endpoint.url)
        assert (code, len(endpoint.requests) - before) == (0, 24 - len(saved))
        assert f"({len(saved)} more are answered already)" in err
    assert Counter(line["key"] for line in lines(tmp_path)).most_common(1)[0][1] == 1
    model = json.loads(out)["models"][0]
    assert (model["n"], model["accuracy"], model["not_asked"]) == (24, 0.5, 0)
    assert (tmp_path / "page.html").stat().st_size > 10_000


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_saves_answers_under_way(photos: Path, tmp_path: Path) -> None:
    arguments = ["--data", f"folder:{photos}", "--model", "m", "--out", tmp_path, "--concurrency", 2]
    with serving(lambda request, number: Response(200, says("Awe").body, wait_s=0.3)) as endpoint:
        process = start(*arguments, "--endpoint", endpoint.url)
        wait_for(tmp_path, 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert len(lines(tmp_path)) == len(endpoint.requests) < 24
        assert f"{len(lines(tmp_path))} answers are saved" in err


@pytest.mark.thorough
def test_key_is_in_no_output(photos: Path, tmp_path: Path) -> None:
    """The server repeats the key in every kind of response, and then says that it is wrong."""
    echo = f"you sent {KEY}"

    def behave(request: Request, number: int) -> Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if request.model == "last":
            return error(401, echo)
        responses = [says(echo), error(400, echo), says(None, refusal=echo), Response(500, echo.encode())]
        return responses[number % 4]

    with serving(behave) as endpoint:
        arguments = ["--data", f"folder:{photos}", "--endpoint", endpoint.url, "--out", tmp_path / "out"]
        arguments += ["--images", 3, "--key-from", "MY_KEY"]
        results = [
            ask(*arguments, "--model", "m", "--json", MY_KEY=KEY),
            ask(*arguments, "--model", "last", MY_KEY=KEY),
        ]
        assert len(endpoint.requests) >= 4
    assert [code for code, _, _ in results] == [3, 1]
    assert "you sent [key]; the key is wrong" in results[1][2]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"answers.csv", "answers.jsonl", "page.html", "result.json"}
    written = [path.read_bytes().decode() for path in files] + [text for _, *both in results for text in both]
    assert not any(KEY in text for text in written)
    assert "[key]" in "".join(written)


def test_definitions_are_asked_and_missing_probabilities_are_reported(photos: Path, tmp_path: Path) -> None:
    def behave(request: Request, number: int) -> Response:
        # Models are asked in turns, so this is every other question to the second one.
        if number % 4 == 1:
            return says_with_probabilities(("B", {"B": 0.9, "A": 0.1}))
        return says("B")

    definitions = tmp_path / "definitions.json"
    definitions.write_text(json.dumps({"awe": "a wonder", "fear": "a danger"}), "utf-8")
    arguments = ["--data", f"folder:{photos}", "--out", tmp_path / "out", "--images", 4, "--concurrency", 1]
    arguments += ["--form", "letters", "--definitions", definitions]
    with serving(behave) as endpoint:
        code, _, err = ask_here(*arguments, "--endpoint", endpoint.url, "--model", "none", "--model", "some")
    assert code == 0, err
    assert all("\nA. fear: a danger\nB. awe: a wonder\n" in request.text for request in endpoint.requests)
    assert "none gives no log-probabilities; probabilities are shares of its answers" in err
    assert "some gives log-probabilities for 2 of 4 answers; the others count with probability 1" in err


def test_exit_code_counts_failures_of_this_run(photos: Path, tmp_path: Path) -> None:
    """Earlier failures at another endpoint are not sent again, and do not count."""
    arguments = ["--data", f"folder:{photos}", "--model", "m", "--out", tmp_path, "--images", 4, "--json"]
    with serving(lambda request, number: error(400, "odd") if number == 1 else says("Awe")) as endpoint:
        code, out, err = ask_here(*arguments, "--endpoint", endpoint.url)
        assert (code, [json.loads(out)["models"][0][name] for name in ("n", "failed")]) == (3, [3, 1])
        assert "1 question failed; repeat the command to send it again" in err
        assert (tmp_path / "page.html").exists()
        with serving(lambda request, number: says("Awe")) as other:
            code, out, err = ask_here(*arguments, "--endpoint", other.url)
        assert (code, [model["failed"] for model in json.loads(out)["models"]]) == (0, [0, 1])
        assert "failed" not in err
        code, out, _ = ask_here(*arguments, "--endpoint", endpoint.url)
        assert (code, json.loads(out)["models"][0]["failed"], len(endpoint.requests)) == (0, 0, 5)


def test_read_key_never_shows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    assert read_key("MY_KEY") == KEY
    assert read_key(None) is None
    monkeypatch.setenv("MY_KEY", f"{KEY}\r\nX-Other: 1")
    for name, message in ((KEY, "never the key"), ("MY_KEY", "holds no key"), ("NOT_SET_ANYWHERE", "holds no key")):
        with pytest.raises(ConfigError, match=message) as raised:
            read_key(name)
        assert KEY not in str(raised.value)


def test_help_does_not_import_the_openai_package() -> None:
    code = (
        "import sys; import uniemox; from uniemox.cli import main\n"
        "sys.argv = ['uniemox', 'ask', '--help']\n"
        "try: main()\n"
        "except SystemExit: print('IMPORTED', {'openai', 'httpx2', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "IMPORTED set()" in done.stdout


def test_missing_package_names_the_extra(photos: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.modules['openai'] = None\n{COMMAND}"
    arguments = ["--data", f"folder:{photos}", "--endpoint", "http://127.0.0.1:9", "--model", "m", "--out", tmp_path]
    command = [sys.executable, "-c", code, "ask", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this command needs openai; run: pip install 'uniemox[ask]'" in done.stderr


def test_too_many_images_send_nothing(photos: Path, tmp_path: Path) -> None:
    with serving(lambda request, number: says("Awe")) as endpoint:
        arguments = ["--data", f"folder:{photos}", "--endpoint", endpoint.url, "--model", "m", "--model", "n"]
        code, out, err = ask_here(*arguments, "--out", tmp_path / "out", "--max-questions", 10, "--images", 20)
        assert (code, out, endpoint.requests) == (1, "", [])
    assert "40 questions, at most about 90,000 tokens in and 10,200 out" in err
    assert "--max-questions 20" in err
    assert not (tmp_path / "out").exists()
