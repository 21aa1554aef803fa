"""The command that writes emotions into XMP sidecar files."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Flag, IndexFolder, UsageError, printable, progress_bar, say

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output
    from uniemox.insight.tag.folder import TaggedImage

# Sidecars that are listed by name in each kind of error.
MAX_LISTED = 20
# In this order; a state that no image has is left out.
SUMMARY = {
    "created": "new sidecars",
    "changed": "changed sidecars",
    "unchanged": "unchanged",
    "removed": "sidecars without our fields now",
    "deleted": "sidecars of ours deleted",
    "guess": "not tagged, because the answer is a guess (--unfamiliar tags them)",
    "shared": "sharing the sidecar of another image of the same name, whose answer it has",
    "unreadable": "unreadable images",
    "failed": "sidecars that could not be used",
}
# States whose names don't say what happens to the file.
STATE_WORDS = {"removed": "our fields removed", "deleted": "file deleted"}


def tag(
    folder: Path,
    /,
    *others: Annotated[Path, Parameter(show=False)],
    naming: Literal["photo.jpg.xmp", "photo.xmp"] | None = None,
    rating: Flag = False,
    unfamiliar: Flag = False,
    undo: Flag = False,
    dry_run: Flag = False,
    index: IndexFolder = None,
    model: str | None = None,
) -> None:
    """Write the emotions of a folder's images into XMP sidecar files, which photo programs read.

    A sidecar gets the keyword emotion|contentment for the most probable label, and valence and arousal. The
    photographs are not changed. In existing sidecars, the fields of other programs stay as they are. A second call
    only predicts new images, whose predictions are saved in the index FOLDER/.uniemox/, as by `uniemox search`. Images
    that are unlike the model's training images are not tagged, because their predictions are guesses. Exits with 3 if
    an image could not be read, or a sidecar not be changed.

    For example:

    - uniemox tag photos --dry-run
    - uniemox tag photos
    - uniemox tag photos --naming photo.xmp --rating
    - uniemox tag photos --undo

    Args:
        folder: Folder of images, including its subfolders.
        naming: Name of new sidecars. photo.jpg.xmp (the default): darktable, digiKam, Immich. photo.xmp: Lightroom,
            Capture One; a raw file and its JPEG share it. An existing sidecar of either name is used.
        rating: Also write xmp:Rating: 1 star for a valence below 2, up to 5 stars from 8. An existing rating stays.
            Later calls without --rating keep these stars, and update them with the answer.
        unfamiliar: Also tag images whose predictions are guesses, marked as such.
        undo: Remove what this command has written. Sidecars that contain nothing else are deleted.
        dry_run: Print what would be written or removed, and write no sidecar. Predictions are saved.
        index: Folder for the index instead of FOLDER/.uniemox/.
        model: Model as for `uniemox predict`. Default: the package's own.
    """
    if others:
        raise UsageError(f"give one folder; {others[0]} is extra")
    if undo:
        if naming or rating or unfamiliar or index or model:
            raise UsageError("--undo takes no other option than --dry-run; leave out the others")
        from uniemox.insight.tag.folder import untag_folder

        _show(untag_folder(folder, dry_run=dry_run), dry_run=dry_run)
        return
    from uniemox.cli.predict_output import Output
    from uniemox.insight.index_file import index_folder, open_for_index
    from uniemox.insight.tag.folder import TagSettings, tag_folder

    settings = TagSettings(naming=naming or "photo.jpg.xmp", rating=rating, unfamiliar=unfamiliar, dry_run=dry_run)
    output = Output(as_json=False, has_rows=False)
    results = tag_folder(
        open_for_index(folder, index, model),
        folder,
        settings,
        index_path=index,
        watch=lambda answers: output.consume_new(answers, [str(folder)], index_folder(folder, index)),
        report=say,
    )
    _show(results, dry_run=dry_run, output=output)


def _show(results: "Iterator[TaggedImage]", *, dry_run: bool, output: "Output | None" = None) -> None:
    """Print the errors, what a dry run would do, and the number of images in each state.

    Args:
        results: What happened to each image.
        dry_run: Nothing was written.
        output: Printer of the predictions, which has named the unreadable images if it has tried them in this call.
    """
    counts = Counter[str]()
    with progress_bar() as progress:
        for result in results:
            counts[result.state] += 1
            progress.show("sidecars", counts.total(), None)
            if dry_run and result.sidecar and not result.error:
                state = STATE_WORDS.get(result.state, result.state)
                words = [f"{result.path}:", result.keyword, result.sidecar, f"({state})"]
                if result.sidecar == result.path:
                    words = words[2:]
                print(printable(" ".join(filter(None, words))))
            if result.error and counts["failed"] <= MAX_LISTED:
                say(result.error)
            is_new = result.state == "unreadable" and output is not None and not output.failures
            if is_new and counts["unreadable"] <= MAX_LISTED:
                say(f"{result.path}: could not be read; uniemox predict says why")
    parts = [f"{text}: {counts[state]:,}" for state, text in SUMMARY.items() if counts[state]]
    prefix = "dry run, no sidecar was written: " if dry_run else ""
    say(prefix + ("; ".join(parts) or "no sidecar has fields of uniemox"))
    if counts["unreadable"] or counts["failed"]:
        sys.exit(EXIT_UNREADABLE)
