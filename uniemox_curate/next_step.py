"""The next step of a project: the one place that decides it, for all commands and pages."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from uniemox.plurals import counted
from uniemox_curate.progress import Agreed, Annotated, Collected, Progress, Released, Screened

# Minimum number of images for which a first split compares schemes: with fewer, a tenth of them is less than three.
MIN_COMPARED = 30


@dataclass(frozen=True, slots=True)
class NextStep:
    """The command that continues the work, or a sentence if no command must be run."""

    command: str
    reason: str = ""
    """Reason for this step; empty if the command alone says it."""

    def __str__(self) -> str:
        """Return the command with its reason."""
        return f"{self.command} ({self.reason})" if self.reason else self.command


def next_step(name: str, progress: Progress) -> NextStep:
    """Return the first step that is due.

    Args:
        name: Folder of the project, quoted for the shell.
        progress: How far each step is.
    """
    due = next(_due(name, progress), None)
    if due is not None:
        return NextStep(f"uniemox curate {due.command}", due.reason)
    agree = progress.agree
    if agree.disputed:
        images = counted(agree.disputed, "image")
        judge = f"{images} without agreement by the rule {agree.rule} could be judged (uniemox curate serve {name})"
        return NextStep(f"nothing must be done; {judge}")
    return NextStep("nothing, all is done")


def split_command(folder: str, kept_images: int) -> str:
    """Return the command that draws a first split of a project, with its reason.

    Args:
        folder: Folder of the project.
        kept_images: Number of kept images.
    """
    return f"uniemox curate {_first_split(shlex.quote(folder), kept_images)}"


def _due(name: str, progress: Progress) -> Iterator[NextStep]:
    """Yield the steps that are due in their order, without `uniemox curate`."""
    yield from _collection_due(name, progress.collect)
    yield from _screen_due(name, progress.screen)
    yield from _answers_due(name, progress.annotate)
    yield from _agreement_due(name, progress.agree)
    yield from _split_due(name, progress)
    yield from _release_due(name, progress.release)


def _collection_due(name: str, collect: Collected) -> Iterator[NextStep]:
    if not collect.offered:
        yield NextStep(f"collect {name} --source folder:IMAGES", "or openverse, commons, bing, csv:TABLE")
    if collect.waiting:
        source = " --source folder:PATH" if collect.waits_for_folder else ""
        # One image may have several.
        reason = f"{counted(collect.waiting, 'address was', 'addresses were')} not fetched yet"
        yield NextStep(f"collect {name}{source}", reason)


def _screen_due(name: str, screen: Screened) -> Iterator[NextStep]:
    if screen.to_look_at:
        yield NextStep(f"screen {name}")
    elif screen.undecided > 0:
        images = counted(screen.undecided, "image has", "images have")
        yield NextStep(f"screen {name}", f"{images} no decision: those of a screen were undone")
    elif not screen.kept and (screen.dropped or screen.taken_down):
        reasons = [f"{reason} {count:,}" for reason, count in screen.dropped.items()]
        if screen.taken_down:
            reasons.append(f"taken down {screen.taken_down:,}")
        reason = f"no image is left ({', '.join(reasons)}): collect others, change what screen drops (--help)"
        yield NextStep(f"collect {name} --source SOURCE", f"{reason}, or keep images on the pages of serve")


def _answers_due(name: str, annotate: Annotated) -> Iterator[NextStep]:
    if annotate.annotators_who_count < 2:
        yield NextStep(f"invite {name} NAME", "an image needs the answers of two annotators")
    if annotate.waiting > 0:
        images = counted(annotate.waiting, "image needs", "images need")
        yield NextStep(f"serve {name}", f"{images} further answers; two annotators must answer each")


def _agreement_due(name: str, agree: Agreed) -> Iterator[NextStep]:
    if agree.figures is None:
        yield NextStep(f"agree {name}")
    elif agree.change:
        yield NextStep(f"agree {name}", agree.change)
    if not agree.kept:
        yield _more_images(name, agree)


def _split_due(name: str, progress: Progress) -> Iterator[NextStep]:
    split = progress.split
    if split is None:
        yield _first_split(name, progress.agree.kept)
    elif split.change:
        again = " ".join([f"split {name}", *split.saved.options])
        yield NextStep(again, f"the split is stale: {split.change}")


def _release_due(name: str, release: Released) -> Iterator[NextStep]:
    if not release.releases:
        yield NextStep(f"release {name} FOLDER --name NAME")
    elif release.change:
        again = f"release {name} {_release_again(release)}"
        yield NextStep(again, f"the release is stale: {release.change}")


def _first_split(name: str, kept_images: int) -> NextStep:
    if kept_images < MIN_COMPARED:
        return NextStep(
            f"split {name} --schemes 1", "few images: colours hardly tell which of several schemes is the best"
        )
    return NextStep(f"split {name}")


def _more_images(name: str, agree: Agreed) -> NextStep:
    """Return the step of a project of which no image is kept."""
    reason = f"the rule {agree.rule} keeps no image; --rule of uniemox curate agree shows the effect of another one"
    if agree.disputed:
        return NextStep(f"serve {name}", f"judge images on the page /judge: {reason}")
    return NextStep(f"collect {name} --source SOURCE", reason)


def _release_again(release: Released) -> str:
    """Return the arguments that write the newest release again with its options; it keeps its texts by itself."""
    options = release.options
    words = [release.releases[-1].folder, "--name", options["name"]]
    # Older versions had fewer options.
    if options.get("version", "1.0.0") != "1.0.0":
        words += ["--version", options["version"]]
    if options.get("only_licensed"):
        words += ["--only-licensed"]
    if options.get("metadata") == "keep":
        words += ["--metadata", "keep"]
    return shlex.join(words)
