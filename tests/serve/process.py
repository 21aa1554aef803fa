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
from uniemox_serve.app import create_app, serve
from uniemox_serve.config import ServeConfig


def predictor_from(model: str | None, folder: Path) -> Predictor:
    """Return the predictor of a model by name, or of "embedded"; None: of a tiny one, written into the folder."""
    if model is None:
        return predictor_of(folder)
    return load(None if model == "embedded" else model)


@contextmanager
def started(model: str | None, folder: Path, **settings: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield the process and its port; its log goes to the folder's log.txt. It is stopped if it still runs."""
    command = [sys.executable, "-m", "tests.serve.process", "--folder", str(folder)]
    command += ["--model", model] if model else []
    for name, value in settings.items():
        command += [f"--{name}", str(value)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True)
        try:
            yield process, _port(process, folder / "log.txt")
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(60)


def _port(process: subprocess.Popen[str], log: Path) -> int:
    while True:
        if match := re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(match[1])
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(f"the server did not start:\n{log.read_text()}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    for field in fields(ServeConfig):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    options = vars(parser.parse_args())
    predictor = predictor_from(options.pop("model"), options.pop("folder"))
    config = ServeConfig(**options)
    serve(create_app([predictor], config), config, host="127.0.0.1", port=0)


if __name__ == "__main__":
    main()
