"""Documents of a release: datasheet (Gebru et al., arXiv 1803.09010), licences, tables, Label Studio."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment

from uniemox.data import read_rows
from uniemox.io import environment, plain_cell, read_json, write_file
from uniemox.labels import recognise_labels
from uniemox.paper import paper_tables
from uniemox_curate import tables as t
from uniemox_curate.annotate.answer_files import as_csv, cells
from uniemox_curate.annotate.verdicts import LatestAnswers
from uniemox_curate.licences import UNKNOWN_LICENCE, terms_of
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.release.config import IMAGES, ReleaseConfig, ReleasedImage
from uniemox_curate.release.croissant import write_croissant
from uniemox_curate.release.facts import AnswerFacts, SharedOrigins
from uniemox_curate.release.hub_card import hub_header
from uniemox_curate.status import ProjectStatus

ALL_ANSWERS = "answers_all.csv"
# Minimum number of class folders that `folder:` recognises (uniemox/data/readers/folders.py).
MIN_CLASSES = 2


def render(template: str, **values: Any) -> str:
    """Return the text that a template of this folder makes of values.

    datasheet.md: those of `about` in `write_documents`, and those below.
    statistics.md: figures, published (table II).  licences.md: licences.
    """
    document = _environment().get_template(f"uniemox_curate/release/{template}")
    return document.render(published=paper_tables()["table2_datasets"], **values)


@cache
def _environment() -> Environment:
    """Return the environment of the documents, which keeps compiled templates."""
    return environment(is_html=False).overlay(finalize=_as_plain_text)


def _as_plain_text(value: Any) -> Any:
    """Return a text on one line, without HTML, links, code or further cells of a table; anything else unchanged."""
    if isinstance(value, str):
        return re.sub(r"([\\<\[`|])", r"\\\1", re.sub(r"\s+", " ", value))
    return value


def statistics(name: str, status: ProjectStatus, plan: CollectionPlan) -> dict[str, Any]:
    """Return the statistics of a release: a row of table II, classes by split, styles, images after each step.

    `write_documents` adds the numbers of released images.

    Args:
        name: Name of the data set.
        status: State of the project.
        plan: Plan of the project.
    """
    collect = status.progress.collect
    screen = status.progress.screen
    people = [person for person in status.annotators if not person.is_left_out]
    label_set = plan.label_set
    annotation = str(len(plan.labels))
    if label_set.name != "custom":
        annotation = f"{label_set.name.capitalize()} ({annotation})"
    return {
        "table II": {"dataset": name, "samples": 0, "annotation": annotation, "styles": []},
        "classes": {label: {} for label in plan.labels},
        "styles": {},
        "funnel": {
            "offered by the sources": collect.offered,
            # Images that were taken down later were fetched, too.
            "fetched": collect.fetched + collect.taken_down,
            "different pictures": collect.different_images,
            "passed the screen": screen.kept,
            "answered by two or more": status.progress.annotate.answered_twice,
            "released": 0,
        },
        "dropped": screen.dropped,
        "attention checks": {
            "asked": sum(person.checks for person in people),
            "passed": sum(person.checks_passed for person in people),
        },
    }


def write_documents(
    folder: Path,
    config: ReleaseConfig,
    plan: CollectionPlan,
    figures: dict[str, Any],
    *,
    answers: AnswerFacts,
    origins: SharedOrigins,
    models: Sequence[str],
    image_root: str,
) -> str:
    """Write the documents of a release from its tables, except for README.md, whose text it returns.

    It adds the numbers of images in the tables to `figures`.

    Args:
        folder: Release with its tables.
        config: Texts of the release.
        plan: Plan of the project.
        figures: Result of `statistics`.
        answers: Numbers of the answers.
        origins: Authors and pages with several images.
        models: Names of the models whose suggestions annotators saw.
        image_root: Folder in front of the paths in tables; "" if they are relative to the folder of images.

    Raises:
        DataError: For a damaged table.
    """
    images = _cells(folder / "labels.csv")
    sources = _cells(folder / "provenance.csv")
    root = "" if image_root else IMAGES
    _count_images(figures, images, plan.labels)
    values = {"figures": figures, "licences": licence_counts(row["licence"] for row in sources)}
    about = {
        "config": config,
        "plan": plan,
        **_facts_of_sources(sources),
        "answers": answers,
        "scales": {question.name: question.scale for question in plan.answer.known},
        "shared": origins,
        "readable_as": release_sources(plan, figures, root=root),
        "models": models,
        "agreement": read_json(folder / "agreement.json", Any, remedy="make the release again"),
        "all_answers": ALL_ANSWERS,
    }
    write_file(folder / "licences.md", render("licences.md", **values))
    write_file(folder / "statistics.md", render("statistics.md", **values))
    write_file(folder / "statistics.json", as_json(figures))
    image_licences = [row["licence"] for row in sources]
    write_croissant(
        folder,
        config,
        [row["path"] for row in images],
        plan.labels,
        image_licences=image_licences,
        image_root=image_root,
    )
    header = hub_header(config, images, image_licences)
    return header + render("datasheet.md", **values, **about)


def _count_images(figures: dict[str, Any], images: Sequence[Mapping[str, str]], labels: Sequence[str]) -> None:
    """Add the numbers of released images to the statistics.

    Args:
        figures: Result of `statistics`.
        images: Rows of labels.csv.
        labels: Labels of the plan.
    """
    splits = sorted({row["split"] for row in images}, key=("train", "val", "test").index)
    counts = Counter((row["label"], row["split"]) for row in images)
    styles = Counter(row["domain"] or "not tagged" for row in images)
    figures["table II"] |= {"samples": len(images), "styles": sorted(styles.keys() - {"not tagged"})}
    figures["classes"] = {label: {split: counts[label, split] for split in splits} for label in labels}
    figures["styles"] = dict(styles.most_common())
    # Records of older versions lack the number at first.
    at_first = figures.get("released at first", len(images))
    figures["taken down"] = at_first - len(images)
    funnel = figures["funnel"]
    del funnel["released"]
    if figures["taken down"]:
        funnel["released at first"] = at_first
    funnel["released"] = len(images)


def _facts_of_sources(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Count images by source, those from licensed folders, and those whose label the makers decided."""
    of_folders = [row["licence"] for row in rows if row["source"] == t.FOLDER]
    return {
        "sources": Counter(row["source"] for row in rows),
        "licensed_folders": sum(licence not in ("", UNKNOWN_LICENCE) for licence in of_folders),
        "by_owner": sum(row["decided"] == "owner" for row in rows),
    }


def release_sources(plan: CollectionPlan, figures: Mapping[str, Any], prefix: str = "", root: str = "") -> list[str]:
    """Return the sources as which uniemox reads a release, the simplest first.

    Args:
        plan: Plan of the project.
        figures: Statistics of the release.
        prefix: Folder of the release with a slash; "" if it is the current one.
        root: Folder of the images that a table's paths lack.
    """
    options = source_options(plan, figures, root)
    tables = [f"csv:{prefix}{name}{options}" for name in ("labels.csv", "soft_labels.csv")]
    # The folder of a single class is not recognised as one.
    if len(_present(figures)) < MIN_CLASSES:
        return tables
    return [f"folder:{prefix}{IMAGES}{source_options(plan, figures)}", *tables]


def source_options(plan: CollectionPlan, figures: Mapping[str, Any], root: str = "") -> str:
    """Return the options with which uniemox reads a release, such as ?kind=felt; "" if it needs none.

    Args:
        plan: Plan of the project.
        figures: Statistics of the release.
        root: Folder of the images that a table's paths lack.
    """
    options = [f"root={root}"] if root else []
    # Labels without an image are no class folders, but columns of soft_labels.csv.
    if {recognise_labels(plan.labels).kind, recognise_labels(_present(figures)).kind} != {plan.kind}:
        options.append(f"kind={plan.kind}")
    return "?" + "&".join(options) if options else ""


def _present(figures: Mapping[str, Any]) -> list[str]:
    """Return the labels of a release that have an image."""
    return [label for label, counts in figures["classes"].items() if sum(counts.values())]


def _cells(table: Path) -> list[dict[str, str]]:
    return [{name: plain_cell(text) for name, text in row.items()} for _, row in read_rows(table, columns=("path",))]


def licence_counts(licences: Iterable[str]) -> dict[str, Any]:
    """Return images under each licence, and the number of images with unknown and with restricting terms."""
    counts = Counter(licence.strip() or UNKNOWN_LICENCE for licence in licences)
    rows = [(name, count, terms_of(name)) for name, count in counts.most_common()]
    return {
        "rows": rows,
        "images": counts.total(),
        "unknown": sum(count for _, count, terms in rows if terms.needs_credit is None),
        "closed": sum(count for _, count, terms in rows if terms.allows_commerce is False),
        "fixed": sum(count for _, count, terms in rows if terms.allows_changes is False),
    }


def label_studio(images: Sequence[ReleasedImage]) -> list[dict[str, Any]]:
    """Return tasks of Label Studio with the label as annotation; images come from its local storage.

    Its project needs <Image name="image" value="$image"/> and <Choices name="emotion" toName="image">.
    """
    tasks = []
    for image in images:
        data = {
            "image": f"/data/local-files/?d={IMAGES}/{image.path}",
            "sha256": image.sha256,
            "split": image.split,
            "style": image.style,
            "address": image.about["address"],
            "licence": image.about["licence"],
            "decided": image.decided,
        }
        choice = {
            "id": image.sha256[:10],
            "from_name": "emotion",
            "to_name": "image",
            "type": "choices",
            "value": {"choices": [image.label]},
        }
        annotation = {"result": [choice], "was_cancelled": False, "ground_truth": True}
        # The number in the project stays the same when other images are taken down.
        tasks.append({"id": image.picture, "data": data, "annotations": [annotation]})
    return tasks


def answer_tables(
    images: Sequence[ReleasedImage], columns: Sequence[str], scales: Sequence[str], image_root: str
) -> dict[str, str]:
    """Return the tables of the answers to released images by file name; means are added where values were asked for.

    Args:
        images: Images of the release.
        columns: Details that answers.csv has.
        scales: Names of the questions that are answered on a scale.
        image_root: Folder in front of the paths.
    """
    lines = []
    means = []
    for image in images:
        for answer in image.answers:
            lines.append([f"{image_root}{image.path}", answer.annotator, answer.label, *cells(answer.details, columns)])
        ratings = [
            [answer.details[name] for answer in image.answers if name in answer.details]  # of one scale
            for name in scales
        ]
        if any(ratings):
            averages = (round(fmean(values), 3) if values else None for values in ratings)
            means.append([f"{image_root}{image.path}", max(map(len, ratings)), *averages])
    tables = {"answers.csv": as_csv(["path", "annotator", "label", *columns], lines)}
    if means:
        tables["ratings.csv"] = as_csv(["path", "answers", *scales], means)
    return tables


def all_answers_table(answers: LatestAnswers) -> str:
    """Return the table of the answers to all images of a project, with numbers in place of images and annotators.

    Agreement is computed from all answers, so that they are published too.
    """
    numbers = annotator_numbers(answers)
    rows = [
        [f"image {number}", numbers[name], label]
        for number, labels in enumerate(answers.by_image.values(), start=1)
        for name, label in labels.items()
    ]
    return as_csv(["image", "annotator", "label"], rows)


def annotator_numbers(answers: LatestAnswers) -> dict[str, str]:
    """Return the number that replaces each annotator's name in a release, such as "annotator 1"."""
    return {name: f"annotator {number}" for number, name in enumerate(answers.people, start=1)}


def as_json(value: Any) -> str:
    """Return the content of a JSON file."""
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
