"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from cyclopts import App, CycloptsError
from rich.text import Text

from uniemox import __version__
from uniemox.cli.ask import ask
from uniemox.cli.bench import bench
from uniemox.cli.calibrate import calibrate
from uniemox.cli.compare import compare
from uniemox.cli.console import UsageError, err, say
from uniemox.cli.curate import curate
from uniemox.cli.data import data
from uniemox.cli.docs import docs
from uniemox.cli.doctor import doctor
from uniemox.cli.evaluate import evaluate
from uniemox.cli.explain import explain
from uniemox.cli.export import export
from uniemox.cli.predict import predict
from uniemox.cli.report import report
from uniemox.cli.reproduce import reproduce
from uniemox.cli.search import search
from uniemox.cli.serve import serve
from uniemox.cli.settings import preset_in
from uniemox.cli.survey import survey
from uniemox.cli.teacher import teacher
from uniemox.cli.weights import convert, fetch
from uniemox.errors import StoppedError, UniemoxError

EXIT_ERROR, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 1, 2, 130, 141

app = App(
    name="uniemox",
    help="What images of whole scenes make people feel (after UniEmoX, arXiv 2409.18877). What the people in them "
    "feel needs a model trained for it: see `uniemox finetune`.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help_epilogue="Tab completion: `uniemox --install-completion`.",
)
app.register_install_completion_command()
COMMANDS = (
    *(predict, survey, search, explain, serve, data, teacher, evaluate, calibrate, compare, report, export, reproduce),
    *(ask, curate, convert, fetch, bench, doctor, docs),
)
for command in COMMANDS:
    app.command(command)
WITH_PRESETS = {  # their options are those of a preset; imported when they are called
    "pretrain": "Pre-train an encoder on scene, person and text (arXiv 2409.18877, section III).",
    "finetune": "Fine-tune an encoder to tell emotions (arXiv 2409.18877, section III-E).",
}
for name, text in WITH_PRESETS.items():
    app.command(f"uniemox.cli.{name}:{name}", name=name, help=text)


def _offer_preset(words: Sequence[str]) -> None:
    """Let a command that takes a preset have the defaults of the one that is named. Raises ConfigError."""
    name = next(iter(words), "")
    if name in WITH_PRESETS:
        module = import_module(f"uniemox.cli.{name}")
        preset = preset_in(words, module.PRESETS, module.DEFAULT)
        if preset != module.DEFAULT:
            del app[name]
            app.command(module.command_for(preset), name=name, help=WITH_PRESETS[name])


def main() -> None:
    """Run the command line; errors that bad input causes become one line on standard error.

    Exit codes: 1 for them, 2 for a command that can't be understood, 3 where some images could not be read.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that the terminal can't show
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files that are no UTF-8, as Path has them
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata; what can't be read is an error of ours
    run_and_report_errors(_run_app)


def _run_app() -> None:
    _offer_preset(sys.argv[1:])
    app(sys.argv[1:], exit_on_error=False)


def run_and_report_errors(program: Callable[[], None]) -> None:
    """Run a program; errors that bad input causes become one line on standard error and an exit code."""
    try:
        program()
    except CycloptsError:  # which has said what is wrong
        sys.exit(EXIT_USAGE)
    except StoppedError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except UniemoxError as error:
        err.print(Text.assemble(("error:", "bold red")), end=" ")
        say(str(error))
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # whoever read standard output has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            say(f"error: writing failed: {error.strerror}; what was finished is kept")
        elif isinstance(error.filename, str | Path):  # a path that was given, and can't be what it was given for
            say(f"error: {error.filename}: {error.strerror}; choose another path, or change who may use it")
        else:
            raise
        sys.exit(EXIT_ERROR)
