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
from uniemox.cli.console import UsageError, err, say
from uniemox.cli.settings import preset_in
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
COMMANDS = {  # and what the list of commands says of them; a command is imported when it is called
    "predict": "Predict what images make people feel, and detect the people in them.",
    "survey": "Show what a collection of images evokes on one page, which opens from a disk.",
    "search": "Find images of a folder that look like another one, evoke an emotion, or have a mood.",
    "explain": "Show which parts of an image speak for an answer.",
    "serve": "Serve predictions over HTTP, and a page to drop images on.",
    "data": "Look at data sets, check them, split them, find the people in them, describe them, pack them.",
    "teacher": "Fit a teacher of your own, where no CLIP can be had.",
    "pretrain": "Pre-train an encoder on scene, person and text (arXiv 2409.18877, section III).",
    "finetune": "Fine-tune an encoder to tell emotions (arXiv 2409.18877, section III-E).",
    "evaluate": "Score a fine-tuned classifier, with 95 % intervals.",
    "calibrate": "Fit a model's confidence and its likely labels to your own labelled images.",
    "compare": "Say by how much one recipe is better than another, over several seeds, on the same images.",
    "report": "Show runs on one page: curves, reconstructions, scores, reliability, examples, and a comparison.",
    "export": "Write a classifier as one ONNX file, or as a folder for a model hub.",
    "reproduce": "Do a table or figure of the paper again: a plan of commands, and one page at the end.",
    "ask": "Ask multimodal models which emotion images evoke, and why (tables VIII and IX, figure 10 of the paper).",
    "curate": "Build an emotion data set as Emo8 was built: collect, screen, annotate, agree, split, release.",
    "convert": "Turn a published checkpoint into safetensors under timm's names, without running code from it.",
    "fetch": "Download the weights that a preset of pretrain starts and learns from, once, where there is a network.",
    "bench": "Measure the speed of this machine with uniemox.",
    "doctor": "Check this machine before a long run: GPUs, compiler, memory, disk, loading. Takes about a minute.",
    "docs": "Show a page of the documentation; without a name, which pages there are.",
}
MODULES = {"convert": "weights", "fetch": "weights"}  # of those whose module has another name
WITH_PRESETS = ("pretrain", "finetune")
for name, text in COMMANDS.items():
    app.command(f"uniemox.cli.{MODULES.get(name, name)}:{name}", name=name, help=text)


def _load_command(words: Sequence[str]) -> None:
    """Import the command that is called: for its own help, and the defaults of the preset. Raises ConfigError."""
    name = next(iter(words), "")
    if name in COMMANDS:
        module = import_module(f"uniemox.cli.{MODULES.get(name, name)}")
        command = getattr(module, name)
        if name in WITH_PRESETS:
            command = module.command_for(preset_in(words, module.PRESETS, module.DEFAULT))
        del app[name]
        app.command(command)


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
    _load_command(sys.argv[1:])
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
