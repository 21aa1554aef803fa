"""Command line: parse arguments, call the library, print results. Heavy packages are imported only if needed."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, MissingArgumentError, UnusedCliTokensError
from cyclopts.panel import CycloptsPanel
from rich.console import RenderableType
from rich.text import Text

from uniemox import __version__
from uniemox.cli.console import EXIT_INTERRUPTED, UsageError, err, say
from uniemox.cli.settings import options_of, preset_in, takes
from uniemox.errors import ModelWarning, StoppedError, UniemoxError
from uniemox.io.borders import shorten
from uniemox.io.drive import DriveWarning, open_standard_streams
from uniemox.io.shortage import shortage_of

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141
# About a tenth of a millisecond.
SPIN_COUNT = "3000"


def _format_mistake(error: CycloptsError) -> RenderableType:
    """Return the message for a command that can't be parsed.

    For an option that is missing, cyclopts writes that it "requires an argument", as if it had been given without one.
    """
    is_missing = isinstance(error, MissingArgumentError) and error.keyword is None
    if is_missing and error.argument is not None and not error.argument.tokens:
        name = error.argument.name
        command = " ".join(error.command_chain or ())
        return CycloptsPanel(f"{name} is missing. See: uniemox {command} --help")
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens and error.app is not None:
        return CycloptsPanel(_unused_words(error.unused_tokens, error.app, " ".join(error.command_chain or ())))
    return CycloptsPanel(error)


def _unused_words(words: Sequence[str], app: App, command: str) -> str:
    """Return the message for words to which no option belongs, with the option that was probably left out.

    Args:
        words: The words.
        app: The command, with its options.
        command: Its name.
    """
    from uniemox.data.kinds import READERS

    first = shorten(words[0])
    options = {name for argument in app.assemble_argument_collection() for name in argument.names}
    kind, colon, _ = words[0].partition(":")
    probable = "--data" if colon and kind in READERS else "--model"
    hint = f"; did you mean {probable} {first}?" if probable in options else "."
    return f"{first} belongs to no option{hint} See: uniemox {command} --help"


app = App(
    name="uniemox",
    help="Predict the emotions that images evoke in people who see them (after UniEmoX, arXiv 2409.18877). To predict "
    "what the people in an image feel, train a model for it: see `uniemox finetune`.",
    version=__version__,
    suppress_keyboard_interrupt=False,
    error_formatter=_format_mistake,
    help_epilogue="Tab completion: `uniemox --install-completion`.",
)
app.register_install_completion_command()
# A command's module is imported only when the command is called, so its line in the list of commands stands here.
COMMANDS = {
    "predict": "Predict what images make people feel, and detect the people in them.",
    "survey": "Write a self-contained HTML page about the emotions that a collection of images evokes.",
    "search": "Find images in a folder by similarity to other images, by emotion, or by mood.",
    "tag": "Write the emotions of a folder's images into XMP sidecar files, which photo programs read.",
    "explain": "Show which parts of an image support a prediction.",
    "data": "Inspect, check, split and pack data sets, detect the people in them, and describe the images in words.",
    "teacher": "Fit your own teacher if no CLIP model is available.",
    "pretrain": "Pre-train an encoder on scene, person and text (arXiv 2409.18877, section III).",
    "finetune": "Fine-tune an encoder to classify emotions (arXiv 2409.18877, section III-E).",
    "few-labels": "Draw the accuracy of light heads on an encoder over the number of labelled images.",
    "evaluate": "Score a fine-tuned classifier, with 95 % intervals over images.",
    "calibrate": "Calibrate a model's probabilities and sets of likely labels on your own labelled images.",
    "compare": "Compare two training settings by runs of several seeds each, scored on the same images.",
    "report": "Write one HTML page about runs: curves, reconstructions, scores, reliability, examples, comparison.",
    "export": "Write a classifier as one ONNX file, a folder for a model hub, or a web page that needs no server.",
    "convert": "Convert a published checkpoint to safetensors with timm's names, without running code from it.",
    "fetch": "Download the initial weights and the teacher of a pretrain preset, for machines without a network.",
    "bench": "Measure the speed of uniemox on this machine.",
    "doctor": "Check this machine before a long run: GPUs, compiler, memory, disk, loading. Takes about a minute.",
    "docs": "Show a page of the documentation, or the lines that contain a word; without an argument, list the pages.",
}
# Commands that live in a module of another name.
MODULES = {
    "convert": "weights",
    "fetch": "weights",
    "compare": "evaluate",
    "report": "evaluate",
    "doctor": "bench",
    "search": "survey",
}
WITH_PRESETS = ("pretrain", "finetune")
for name, text in COMMANDS.items():
    function = name.replace("-", "_")
    app.command(f"uniemox.cli.{MODULES.get(name, function)}:{function}", name=name, help=text)


def main() -> None:
    """Run the command line. Errors caused by bad input become one line on standard error.

    Exit codes: 1 for such an error, 2 for a command that can't be parsed, 3 if some images could not be read.
    """
    open_standard_streams()
    # Terminals that do not know their width report 0 columns.
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The terminal's encoding may lack characters of a file name.
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A list of files may contain names that are not UTF-8; `Path` decodes them in the same way.
        sys.stdin.reconfigure(errors="surrogateescape")
    # PIL warns of odd metadata; unreadable images raise our own errors.
    warnings.filterwarnings("ignore", module="PIL")
    # Commands print these as lines of their own.
    warnings.filterwarnings("ignore", category=ModelWarning)
    warnings.showwarning = partial(_show_warning, warnings.showwarning)
    share_busy_cores()
    run_and_report_errors(_run_app)


def _show_warning(show: Callable[..., None], message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print a warning about a drive as a note; show others as before."""
    if issubclass(category, DriveWarning):
        say(str(message))
    else:
        show(message, category, *where)


def share_busy_cores() -> None:
    """Let torch's threads give up their cores soon while they wait for each other, unless the user has decided.

    By default they wait for milliseconds with busy cores. Beside another process, a training step then takes nearly
    three times as long (docs/performance.md). torch reads the variable when it is imported, so call this before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def _run_app() -> None:
    """Import the command that is called, for its own help and its preset's defaults, and run it."""
    arguments = sys.argv[1:]
    name = next(iter(arguments), "")
    if name in COMMANDS:
        function = name.replace("-", "_")
        module = import_module(f"uniemox.cli.{MODULES.get(name, function)}")
        command = getattr(module, function)
        if name in WITH_PRESETS:
            preset = module.PRESETS[preset_in(arguments, module.PRESETS, module.DEFAULT)]()
            takes(settings=options_of(preset, without=module.NO_OPTIONS))(command)
        del app[name]
        app.command(command)
    else:
        add_foreign_commands(name)
    # Importing a Markdown parser takes a fifth of the time of `uniemox --help`.
    is_command = name in app and not name.startswith("-")
    app.help_format = "markdown" if is_command else "plaintext"
    app(arguments, exit_on_error=False)


def add_foreign_commands(name: str) -> None:
    """Add the commands of other packages; only the one that is called is imported.

    Args:
        name: Name of the command that is called; empty if it is none of these.
    """
    # Reading the metadata of packages takes 40 ms, which our own commands don't need.
    from uniemox.cli.foreign import foreign_commands, help_of, load_command

    for entry in foreign_commands(COMMANDS).values():
        if entry.name in app:
            # A second call of `main` in the same process.
            del app[entry.name]
        if entry.name == name:
            app.command(load_command(entry), name=name)
        else:
            app.command(entry.value, name=entry.name, help=help_of(entry))


def _with_short_words(message: str) -> str:
    """Shorten the values that were given on the command line, which messages repeat and which may be data URLs."""
    for word in sorted(sys.argv[1:], key=len, reverse=True):
        value = word.partition("=")[2] if word.startswith("--") else word
        if value:
            message = message.replace(value, shorten(value))
    return message


def run_and_report_errors(program: Callable[[], None]) -> None:
    """Run a program. Errors caused by bad input become one line on standard error and an exit code."""
    try:
        program()
    except CycloptsError:
        # cyclopts has already printed the mistake.
        sys.exit(EXIT_USAGE)
    except StoppedError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except UniemoxError as error:
        err.print(Text.assemble(("error:", "bold red")), end=" ")
        say(_with_short_words(str(error)))
        sys.exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of standard output has closed it, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_BROKEN_PIPE)
    except (OSError, RuntimeError) as error:
        if shortage := shortage_of(error):
            say(f"error: {shortage}")
        elif not isinstance(error, OSError):
            raise
        elif error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            say(f"error: writing failed: {error.strerror}; finished files are kept")
        elif isinstance(error.filename, str | Path):
            # The command line named a path that can't be used.
            path = shorten(str(error.filename))
            say(f"error: {path}: {error.strerror}; choose another path, or change its permissions")
        else:
            raise
        sys.exit(EXIT_ERROR)
