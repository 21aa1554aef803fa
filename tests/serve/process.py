"""A server in a process of its own: python -m tests.serve.process [--model M] --folder F --timeout-s 10 ...

Prints nothing; its log says the port. Without --model it serves the tiny model of the tests.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from tests.serve.serving import predictor_of
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor
from uniemox.serve.app import create_app, serve
from uniemox.serve.config import ServeConfig


def predictor_from(model: str | None, folder: Path) -> Predictor:
    """A model by name, "embedded", or None for the tiny one, which is written into the folder."""
    if model is None:
        return predictor_of(folder)
    return load(None if model == "embedded" else model)


@contextmanager
def started(model: str | None, folder: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The process and its port; its log goes to the folder's log.txt. It is stopped at the end if it still runs."""
    words = [sys.executable, "-m", "tests.serve.process", "--folder", str(folder)]
    words += ["--model", model] if model else []
    words += [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(words, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True)
        try:
            yield process, _port(process, folder / "log.txt")
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


def _port(process: subprocess.Popen[str], log: Path) -> int:
    while True:
        if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(f"the server did not start:\n{log.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    for part in fields(ServeConfig):
        parser.add_argument(f"--{part.name}", type=type(part.default), default=part.default)
    given = vars(parser.parse_args())
    predictor = predictor_from(given.pop("model"), given.pop("folder"))
    config = ServeConfig(**given)
    serve(create_app([predictor], config), config, host="127.0.0.1", port=0)


if __name__ == "__main__":
    main()
