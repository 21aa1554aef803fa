"""Documents of a release: datasheet (Gebru et al., arXiv 1803.09010), licences, tables, Croissant, Label Studio."""

import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from uniemox.curate.annotate.answer_files import cells, given_answers
from uniemox.curate.annotate.verdicts import read_answers
from uniemox.curate.plan import CollectionPlan, Rule
from uniemox.curate.project import Project
from uniemox.curate.release.config import ReleaseConfig, ReleasedImage
from uniemox.data.source import public_name
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import write_rows
from uniemox.paper import paper_tables

MISSING = "*To be written by those who publish it.*"
KINDS = {
    "evoked": "what an image evokes in its viewer",
    "felt": "what a person in the image feels",
    "expressed": "what a face in the image shows",
}
RULES: dict[Rule, str] = {
    "both": "all annotators agreed with the label that was searched",
    "majority": "more than half of the annotators agreed on its label",
    "soft": "most annotators named its label; soft_labels.csv has all shares",
}
TABLES = ("labels.csv", "soft_labels.csv", "provenance.csv")
SCALES = ("intensity", "valence", "arousal")
PUBLISHED = ("labels", *SCALES, "suggested")  # details of answers that a release holds


def statistics(
    name: str, rows: Sequence[ReleasedImage], status: Mapping[str, Any], plan: CollectionPlan
) -> dict[str, Any]:
    """Return the statistics of a release: a row of table II, classes by split, styles, images after each step."""
    splits = sorted({row.split for row in rows}, key=("train", "val", "test").index)
    counts = Counter((row.label, row.split) for row in rows)
    steps = status["steps"]
    label_set = plan.label_set
    published = "" if label_set.name == "custom" else f"{label_set.name.capitalize()} "
    return {
        "table II": {
            "dataset": name,
            "samples": len(rows),
            "annotation": f"{published}({len(plan.labels)})",
            "styles": sorted({row.style for row in rows if row.style}),
        },
        "classes": {label: {split: counts[label, split] for split in splits} for label in plan.labels},
        "styles": dict(Counter(row.style or "not tagged" for row in rows).most_common()),
        "funnel": {
            "offered by the sources": steps["collect"]["offered"],
            "fetched": steps["collect"]["fetched"],
            "different pictures": steps["collect"]["different pictures"],
            "passed the screen": steps["screen"]["kept"],
            "answered by two or more": steps["annotate"]["answered twice"],
            "released": len(rows),
        },
        "dropped": steps["screen"]["dropped"],
    }


def table_two(figures: Mapping[str, Any]) -> str:
    """Return table II of arXiv 2409.18877 with one more row, classes by split, and images by step, in Markdown."""
    own = figures["table II"]
    lines = ["| Dataset | Samples | Annotation | Type |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {name} | {count:,} | {labels} | {kind} |" for name, count, labels, kind in paper_tables()["table2_datasets"]
    ]
    kinds = ", ".join(own["styles"]) or "not tagged"
    lines.append(f"| **{own['dataset']}** | {own['samples']:,} | {own['annotation']} | {kinds} |")
    splits = list(next(iter(figures["classes"].values()), {}))
    lines += ["", f"| class | {' | '.join(splits)} | all |", "| --- |" + " --- |" * (len(splits) + 1)]
    for label, by_split in figures["classes"].items():
        lines.append(f"| {label} | {' | '.join(str(by_split[s]) for s in splits)} | {sum(by_split.values())} |")
    lines += ["", "| step | images |", "| --- | --- |"]
    lines += [f"| {step} | {count:,} |" for step, count in figures["funnel"].items()]
    return "\n".join(lines) + "\n"


def datasheet(
    config: ReleaseConfig,
    plan: CollectionPlan,
    rows: Sequence[ReleasedImage],
    figures: Mapping[str, Any],
    agreement: Mapping[str, Any] | None,
    suggestions: tuple[int, Sequence[str]] = (0, ()),
) -> str:
    """Return the README of a release. Texts that only a person can write are marked as missing.

    suggestions: number of answers with a visible suggestion, and the models.
    """
    funnel, licences = figures["funnel"], licence_report(row.licence for row in rows)
    return (
        files(__package__)
        .joinpath("datasheet.md")
        .read_text("utf-8")
        .format(
            name=config.name,
            count=len(rows),
            label_count=len(plan.labels),
            labels=", ".join(plan.labels),
            kind=KINDS[plan.kind],
            statistics=table_two(figures),
            missing=MISSING,
            metadata=_metadata_words(figures["metadata"]),
            sources=_source_words(Counter(row.about.get("source", "") for row in rows)),
            rule=RULES[config.rule],
            min_answers=config.min_answers,
            owner=_owner_words(sum(row.by_owner for row in rows)),
            form=_form_words(plan, *suggestions),
            agreement=_agreement_words(agreement),
            dropped=", ".join(f"{reason} {count:,}" for reason, count in figures["dropped"].items()) or "nothing",
            duplicates="Near duplicates were removed."
            if funnel["passed the screen"]
            else "They were not screened for them.",
            licence=f"Labels and texts: {config.licence}."
            if config.licence
            else "The licence of labels is not decided.",
            licences="\n".join(licences),
            citation=f"\n## Citation\n\n{config.citation}\n" if config.citation else "",
        )
    )


def _source_words(sources: Counter[str]) -> str:
    ways = {
        "folder": "from a folder of files that its makers had already",
        "csv": "from a table of addresses that its makers wrote",
    }
    searched = "found by search words for each label (`plan.json`) at"
    return "; ".join(f"{count:,} {ways.get(name, f'{searched} {name}')}" for name, count in sources.most_common())


def _metadata_words(metadata: Mapping[str, Any]) -> str:
    written = "What cameras and programs wrote into the files, such as place, time and names,"
    if metadata["asked"] == "keep":
        return f"{written} is unchanged."
    left = metadata["still there"]
    return f"{written} was taken out{f', but for {left:,} in formats other than JPEG, PNG and WebP' if left else ''}."


def _owner_words(count: int) -> str:
    if not count:
        return ""
    return (
        f"The makers decided the label of {count:,} images on which annotators did not agree or named no fitting label "
        "(`decided` in `provenance.csv`); `soft_labels.csv` has the annotators' answers. "
    )


def _form_words(plan: CollectionPlan, suggested: int, models: Sequence[str]) -> str:
    form, sentences = plan.answer, []
    if form.several:
        sentences.append("They could name several labels, the strongest first, which is the one that counts.")
    if form.intensity or form.affect:
        asked = ["intensity"] * form.intensity + ["valence", "arousal"] * form.affect
        sentences.append(f"They rated {', '.join(asked)} from 1 to 9 (`ratings.csv`).")
    if form.consent:
        sentences.append("They agreed to the text in `plan.json` before.")
    if suggested:
        shown = ", ".join(map(public_name, models))
        sentences.append(f"{suggested:,} answers were given next to a model's suggestion (`answers.csv`): {shown}.")
    return "".join(f"{sentence} " for sentence in sentences)


def _agreement_words(agreement: Mapping[str, Any] | None) -> str:
    if agreement is None:
        return "Agreement was not computed."
    alpha, percent = agreement["alpha"], agreement["percent"]
    if alpha["value"] is None or percent["value"] is None:
        return "Agreement is not defined."
    return (
        f"Before any rule, on {agreement['pictures']:,} images with two or more answers: agreement "
        f"{100 * percent['value']:.1f} %, Krippendorff's α {alpha['value']:.3f} "
        f"(95 % interval {alpha['low']:.3f} to {alpha['high']:.3f})."
    )


class Terms(NamedTuple):
    """Terms of a licence; None where unknown."""

    needs_credit: bool | None = None
    allows_commerce: bool | None = None
    allows_changes: bool | None = None


def terms_of(licence: str) -> Terms:
    """Return the terms of a licence by its short name, as Openverse, Commons and people write it.

    >>> terms_of("CC BY-NC-SA 4.0")
    Terms(needs_credit=True, allows_commerce=False, allows_changes=True)
    """
    word = re.sub(r"[\s_]+", "-", licence.strip().lower())
    if word.startswith("bing"):
        return Terms()
    if re.search(r"(^|-)(cc0|cc-zero|pdm|public-domain)", word) or word.startswith("pd"):
        return Terms(False, True, True)
    match = re.match(r"(cc-)?by((?:-(?:nc|nd|sa))*)(-\d.*)?$", word)
    return Terms(True, "-nc" not in match.group(2), "-nd" not in match.group(2)) if match else Terms()


def licence_report(licences: Iterable[str]) -> list[str]:
    """Return lines of Markdown: images under each licence, and what that means for the whole data set."""
    counts = Counter(licence.strip() or "unknown" for licence in licences)
    lines = ["| licence | images | credit | commercial use | changes |", "| --- | --- | --- | --- | --- |"]
    words = {None: "not known", True: "yes", False: "no"}
    unknown = closed = fixed = 0
    for name, count in counts.most_common():
        terms, cell = terms_of(name), name.replace("|", "\\|")
        lines.append(f"| {cell} | {count} | {' | '.join(words[term] for term in terms)} |")
        unknown += count * (terms.needs_credit is None)
        closed += count * (terms.allows_commerce is False)
        fixed += count * (terms.allows_changes is False)
    summary = f"{unknown} without a known licence, {closed} exclude commercial use, {fixed} exclude changes."
    lines += ["", f"{counts.total()} images: {summary}"]
    if unknown:
        lines.append(
            "An image without a known licence belongs to somebody: unless a law permits research, do not pass it on."
        )
    return lines


def croissant(
    folder: Path, config: ReleaseConfig, rows: Sequence[ReleasedImage], labels: Sequence[str]
) -> dict[str, Any]:
    """Return Croissant metadata as JSON-LD (https://docs.mlcommons.org/croissant): tables, their hashes and records.

    folder: the release with its tables. Raises DataError if mlcroissant finds an error, MissingPackageError without it.
    """
    try:
        import mlcroissant as mlc  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("Croissant needs mlcroissant; run: pip install 'uniemox[curate]'") from None
    files = [
        mlc.FileObject(
            id=name,
            name=name,
            content_url=name,
            encoding_formats=["text/csv"],
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        )
        for name in TABLES
    ]
    fields = [
        mlc.Field(
            id=f"pictures/{name}",
            name=name,
            description=about,
            data_types=mlc.DataType.TEXT,
            source=mlc.Source(file_object="labels.csv", extract=mlc.Extract(column=name)),
        )
        for name, about in (
            ("path", "The image's file, below the folder pictures."),
            ("label", f"One of {', '.join(labels)}."),
            ("split", "train, val or test."),
            ("domain", "The image's style; empty if it was not tagged."),
        )
    ]
    metadata = mlc.Metadata(
        name=config.name,
        description=f"{len(rows)} images with one of {len(labels)} emotions each: {', '.join(labels)}.",
        license=[config.licence] if config.licence else None,
        url=config.address or None,
        cite_as=config.citation or None,
        version=config.version,
        date_published=datetime.now(UTC).replace(microsecond=0),
        distribution=files,
        record_sets=[mlc.RecordSet(id="pictures", name="pictures", fields=fields)],
    )
    content: dict[str, Any] = json.loads(json.dumps(metadata.to_json(), default=str))
    _check_croissant(mlc, folder / ".croissant-check.json", content)
    return content


def _check_croissant(mlc: Any, path: Path, content: dict[str, Any]) -> None:
    """Raise DataError if mlcroissant finds an error.  path: for a temporary file."""
    path.write_text(json.dumps(content), "utf-8")
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the library prints warnings
    try:
        mlc.Dataset(jsonld=path)
    except mlc.ValidationError as error:
        raise DataError(f"{path.parent}: the Croissant metadata are not valid: {error}") from error
    finally:
        logger.setLevel(level)
        path.unlink()


def label_studio(rows: Sequence[ReleasedImage]) -> list[dict[str, Any]]:
    """Return tasks of Label Studio with the label as annotation; images come from its local storage.

    Its project needs <Image name="image" value="$image"/> and <Choices name="emotion" toName="image">.
    """
    tasks = []
    for number, row in enumerate(rows, start=1):
        data = {"image": f"/data/local-files/?d=pictures/{row.path}", "sha256": row.sha256, "split": row.split}
        data |= {"style": row.style, "address": row.about.get("address", ""), "licence": row.licence}
        choice = {"id": row.sha256[:10], "from_name": "emotion", "to_name": "image", "type": "choices"}
        result = [{**choice, "value": {"choices": [row.label]}}]
        annotation = {"result": result, "was_cancelled": False, "ground_truth": True}
        tasks.append({"id": number, "data": {**data, "decided": row.decided}, "annotations": [annotation]})
    return tasks


def answer_tables(project: Project, rows: Sequence[ReleasedImage]) -> tuple[dict[str, str], int]:
    """Return the tables of answers by file name, and the number of answers with a visible suggestion.

    Annotators are numbered, comments are left out; means are added where values were asked for.
    """
    answers = read_answers(project)
    number = {name: f"annotator {i + 1}" for i, name in enumerate(answers.people)}
    details = {(one.picture, one.annotator): one.details for one in given_answers(project)}
    more = [name for name in PUBLISHED if any(name in content for content in details.values())]
    lines, means, suggested = [], [], 0
    for row in rows:
        own = [
            (name, label, details[row.picture, name]) for name, label in answers.by_picture.get(row.picture, {}).items()
        ]
        lines += [[row.path, number[name], label, *cells(content, more)] for name, label, content in own]
        suggested += sum("suggested" in content for _, _, content in own)
        values = [[content[name] for _, _, content in own if name in content] for name in SCALES]
        if any(values):
            means.append([row.path, max(map(len, values)), *(round(fmean(one), 3) if one else None for one in values)])
    tables = {"answers.csv": as_csv(["path", "annotator", "label", *more], lines)}
    if means:
        tables["ratings.csv"] = as_csv(["path", "answers", *SCALES], means)
    return tables, suggested


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
