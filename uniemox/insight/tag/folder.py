"""Sidecar files of a folder's images: which file belongs to which image, writing them, and undoing it."""

import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from uniemox.errors import ConfigError, DataError
from uniemox.insight.index import Index, refuse_missing, update_index
from uniemox.insight.survey.lines import EXHAUST, NewAnswers
from uniemox.insight.tag.document import MAX_SIDECAR_BYTES
from uniemox.insight.tag.fields import NAMESPACE, Tags
from uniemox.insight.tag.inside import read_inside
from uniemox.insight.tag.sidecar import remove_tags, write_tags
from uniemox.io.files import read_limited, refuse_special, replacing
from uniemox.io.raw_preview import RAW_ENDINGS
from uniemox.io.walking import LeftOut, walk_folder
from uniemox.labels import AFFECT, AXES
from uniemox.predict.confidence import unflagged_note
from uniemox.predict.images import walk
from uniemox.predict.predictor import Predictor

Naming = Literal["photo.jpg.xmp", "photo.xmp"]
# The first is that of new sidecars; some programs write capitals.
_ENDINGS = (".xmp", ".XMP")
State = Literal["created", "changed", "unchanged", "removed", "deleted", "guess", "shared", "unreadable", "failed"]
# First part of the path of keywords, so that what an image evokes is not mixed with what people in it feel.
_ROOTS = {"evoked": "emotion", "felt": "felt emotion", "expressed": "expressed emotion"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSettings:
    """Settings of `tag_folder`.

    Raises:
        ConfigError: For an unknown naming.
    """

    naming: Naming = "photo.jpg.xmp"
    """Name of new sidecars. An existing one of either kind is used."""
    rating: bool = False
    """Also write xmp:Rating, from valence. False: only update the ratings that an earlier call has written."""
    unfamiliar: bool = False
    """Also tag images whose answers are guesses."""
    dry_run: bool = False
    """Return what would be written, and write no sidecar."""

    def __post_init__(self) -> None:
        if self.naming not in get_args(Naming):
            raise ConfigError(f"naming must be {' or '.join(get_args(Naming))}, got {self.naming!r}")


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """Result of tagging an image, or of `untag` for a sidecar."""

    path: str
    """The image; for `untag`, the sidecar."""
    state: State
    """created, changed or unchanged: the sidecar has the answer. guess: not tagged, because the answer is a guess.
    removed: our fields were removed from the sidecar. deleted: so was the sidecar, because we had made it and nothing
    else was in it. shared: the sidecar has the answer about another image of the same name. unreadable: there is no
    answer. failed: the sidecar can't be read or written."""
    sidecar: str | None = None
    keyword: str = ""
    """Keyword of the answer, such as emotion|awe."""
    error: str = ""
    """Reason, if the sidecar can't be used."""


def tag_folder(
    predictor: Predictor,
    folder: Path,
    settings: TagSettings,
    *,
    index_path: Path | None = None,
    watch: Callable[[NewAnswers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
) -> Iterator[TaggedImage]:
    """Update a folder's index, and return an iterator that writes the answers into sidecar files.

    It yields what happened to each image. Each sidecar is written completely or not at all, when its turn comes.
    Fields of other programs stay, byte for byte.

    Args:
        predictor: From `load`.
        folder: Folder of images, including its subfolders.
        settings: Names and content of the sidecars.
        index_path: Folder for the index; None: FOLDER/.uniemox/.
        watch: Function that consumes the predictions of images that are not yet in the index.
        report: Gets notes about folders that were skipped, and about a model that can't tell which answers are guesses.

    Raises:
        ConfigError: For a model without emotion labels, for a rating from a model without valence, and if another
            process writes the index.
        DataError: If there is no such folder, the index can't be read or written, or no image can be read.
    """
    if not _labels_of(predictor):
        raise ConfigError(f"{predictor.name} predicts no emotion labels, so there is no keyword; choose another model")
    refuse_missing(folder)
    if note_on_unflagged := unflagged_note(predictor.network.info):
        report(note_on_unflagged)
    listed = [os.fspath(path) for path in walk(folder)]
    index = update_index(predictor, folder, watch, report, index_path=index_path)
    if settings.rating and "valence" not in index.columns:
        raise ConfigError(f"{predictor.name} predicts no valence for a rating; leave out the rating")
    answers = _tags_of(index, predictor)
    plan = plan_sidecars(listed, settings.naming)
    return chain.from_iterable(_tag_images(sidecar, images, answers, settings) for sidecar, images in plan.items())


def untag_folder(folder: Path, *, dry_run: bool = False) -> Iterator[TaggedImage]:
    """Remove our fields from all sidecars in a folder, and yield what happened to each of them.

    A sidecar that we have made and that has no other field is deleted. Sidecars without our fields are not yielded.

    Args:
        folder: Folder, including its subfolders.
        dry_run: Change nothing.

    Raises:
        DataError: If there is no such folder.
    """
    refuse_missing(folder)
    unlisted = set[Path]()

    def note_unlisted(path: Path, _error: OSError) -> Path:
        unlisted.add(path)
        return path

    for path in walk_folder(folder, note_unlisted, LeftOut()):
        if path in unlisted:
            yield TaggedImage(str(path), "failed", error=f"{path}: the folder can't be read")
        elif path.suffix.lower() == ".xmp":
            result = _untag(path, dry_run=dry_run)
            if result is not None:
                yield result


def plan_sidecars(images: Iterable[str], naming: Naming) -> dict[Path, list[str]]:
    """Return the sidecar of each image, with the images that share it: raw files first, then by name.

    An existing sidecar is used, whatever its naming. But photo.xmp is about the raw file, if several images have the
    name photo, unless `naming` asks for it.

    Args:
        images: Paths of all images in their folders, also of unreadable ones.
        naming: Name of new sidecars.
    """
    by_stem = defaultdict[str, list[str]](list)
    for image in images:
        by_stem[os.path.splitext(image)[0]].append(image)
    plan = defaultdict[Path, list[str]](list)
    for stem, group in by_stem.items():
        group.sort(key=lambda image: (not _is_raw(image), image))
        short = _existing(stem)
        owner = group[0] if len(group) == 1 or (_is_raw(group[0]) and not _is_raw(group[1])) else None
        for image in group:
            full = _existing(image)
            if naming == "photo.xmp":
                sidecar = short or full or f"{stem}.xmp"
            elif image == owner:
                sidecar = full or short or f"{image}.xmp"
            else:
                sidecar = full or f"{image}.xmp"
            plan[Path(sidecar)].append(image)
    return plan


def _existing(name: str) -> str | None:
    """Return the sidecar that exists for a name, with or without the ending of the image."""
    return next((name + ending for ending in _ENDINGS if os.path.lexists(name + ending)), None)


def _is_raw(image: str) -> bool:
    return image.lower().endswith(RAW_ENDINGS)


def _labels_of(predictor: Predictor) -> tuple[str, ...]:
    """Return the emotion labels of a model; a model of ratings alone has none."""
    return tuple(label for label in predictor.labels if label not in AXES)


def _tags_of(index: Index, predictor: Predictor) -> dict[str, Tags]:
    """Return the tags of each image in the index, by its path."""
    labels = _labels_of(predictor)
    probabilities = index.values[:, [index.columns.index(label) for label in labels]]  # (N, labels)
    affect = {name: index.column(name).tolist() for name in AFFECT if name in index.columns}
    root = _ROOTS.get(predictor.kind, f"{predictor.kind} emotion")
    model_hash = predictor.fingerprint
    tags = {}
    for row, path in enumerate(index.paths.tolist()):
        best = int(probabilities[row].argmax())
        # The separators of paths in lists of keywords.
        label = labels[best].replace("|", " ").replace("/", " ")
        values = {name: column[row] for name, column in affect.items()}
        valence = values.get("valence")
        tags[path] = Tags(
            keyword=f"{root}|{label}",
            probability=float(probabilities[row, best]),
            valence=valence,
            arousal=values.get("arousal"),
            kind=predictor.kind,
            model=predictor.name,
            model_hash=model_hash,
            is_unfamiliar=bool(index.is_unfamiliar[row]),
            rating=None if valence is None else rating_of(valence),
        )
    return tags


def rating_of(valence: float) -> int:
    """Return the rating of a valence from 1 to 9: 1 below 2, then one more for each 2.

    >>> rating_of(1), rating_of(5), rating_of(6.2), rating_of(9)
    (1, 3, 4, 5)
    """
    stars = 1 + int((valence - 1) / 2 + 0.5)
    return min(max(stars, 1), 5)


def _tag_images(
    sidecar: Path, images: list[str], answers: dict[str, Tags], settings: TagSettings
) -> Iterator[TaggedImage]:
    """Write the answer about the first image with one into the sidecar that the images share."""
    taggable = [
        image for image in images if image in answers and (settings.unfamiliar or not answers[image].is_unfamiliar)
    ]
    # The sidecar may have the answer of an earlier call.
    has_old_answer = not taggable and os.path.lexists(sidecar)
    for image in images:
        tags = answers.get(image)
        if tags is None:
            yield TaggedImage(image, "unreadable")
        elif not taggable:
            removed = _untag(sidecar, dry_run=settings.dry_run) if has_old_answer else None
            has_old_answer = False
            yield TaggedImage(image, "guess") if removed is None else replace(removed, path=image)
        elif image == taggable[0]:
            yield _tag(image, sidecar, tags, settings)
        elif image in taggable:
            yield TaggedImage(image, "shared", str(sidecar))
        else:
            yield TaggedImage(image, "guess")


def _tag(image: str, sidecar: Path, tags: Tags, settings: TagSettings) -> TaggedImage:
    """Write an answer into a sidecar; an error becomes a result."""
    try:
        refuse_special(sidecar)
        before = _read(sidecar) if os.path.lexists(sidecar) else None
        with _naming_file(sidecar):
            inside = cache(partial(read_inside, image))
            after = write_tags(before, tags, inside, adds_rating=settings.rating)
        if after == before:
            return TaggedImage(image, "unchanged", str(sidecar), tags.keyword)
        if not settings.dry_run:
            _replace_or_delete(sidecar, after)
    except DataError as error:
        return TaggedImage(image, "failed", str(sidecar), tags.keyword, str(error))
    return TaggedImage(image, "created" if before is None else "changed", str(sidecar), tags.keyword)


def _untag(sidecar: Path, *, dry_run: bool) -> TaggedImage | None:
    """Remove our fields from a sidecar; an error becomes a result. None if there is no field of ours."""
    try:
        before = _read(sidecar)
        if NAMESPACE.encode() not in before:
            return None
        with _naming_file(sidecar):
            after = remove_tags(before)
        if after == before:
            return None
        refuse_special(sidecar)
        if not dry_run:
            _replace_or_delete(sidecar, after)
    except DataError as error:
        return TaggedImage(str(sidecar), "failed", str(sidecar), error=str(error))
    return TaggedImage(str(sidecar), "deleted" if after is None else "removed", str(sidecar))


def _replace_or_delete(sidecar: Path, content: bytes | None) -> None:
    """Write a sidecar completely or not at all; without content, delete it.

    Raises:
        DataError: If it can't be written or deleted.
    """
    try:
        if content is None:
            sidecar.unlink()
        else:
            with replacing(sidecar, keep_permissions=True) as partial:
                partial.write_bytes(content)
    except (OSError, DataError) as error:
        # The advice of `replacing`, another name, is none for a sidecar.
        cause = error.__cause__ or error
        reason = getattr(cause, "strerror", None) or cause
        raise DataError(f"{sidecar}: can't be changed ({reason}); it was not changed") from error


def _read(sidecar: Path) -> bytes:
    """Return the content of a sidecar.

    Raises:
        DataError: If it can't be read.
    """
    try:
        return read_limited(sidecar, MAX_SIDECAR_BYTES)
    except OSError as error:
        raise DataError(f"{sidecar}: can't be read ({error.strerror})") from error


@contextmanager
def _naming_file(sidecar: Path) -> Iterator[None]:
    """Put the name of a sidecar, and what to do, in front of and behind the reason of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{sidecar}: {error}; it was not changed: repair it, or move it away") from error
