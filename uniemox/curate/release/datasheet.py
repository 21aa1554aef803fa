"""Readable files of a release: datasheet (Gebru et al., arXiv 1803.09010), table II of the paper, licences."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from uniemox.curate.plan import CollectionPlan
from uniemox.curate.release.config import ReleaseConfig, ReleasedImage
from uniemox.data.source import public_name
from uniemox.paper import paper_tables

TO_WRITE = "*To be written by those who publish it.*"


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
    sources = Counter(row.about.get("source", "") for row in rows)
    rules = {
        "both": "all annotators agreed with the label that was searched",
        "majority": "more than half of the annotators agreed on its label",
        "soft": "most annotators named its label; soft_labels.csv has all shares",
    }
    kind = "what an image evokes in its viewer" if plan.kind == "evoked" else "what a person in the image feels"
    parts = [
        f"# {config.name}",
        f"{len(rows):,} images with one of {len(plan.labels)} labels, {', '.join(plan.labels)}: {kind}.",
        "Read it with `uniemox data show folder:pictures`, or `csv:labels.csv?root=pictures` and `csv:soft_labels.csv?"
        "root=pictures`; `provenance.csv` says where images came from; `sha256sum -c SHA256SUMS` checks all files.",
        table_two(figures),
        "## Motivation\n\nFor what purpose, by whom, and paid by whom was it made?\n\n" + TO_WRITE,
        "## Composition\n\nNobody checked who is in the images: they may show people who do not know of it. "
        + _metadata_words(figures["metadata"]),
        f"## Collection\n\n{_source_words(sources)} "
        "Each image's address, page, licence, author, search word and time are in `provenance.csv`, as far as they are "
        "known.",
        "## Labelling\n\nAnnotators saw images in orders of their own, without search word and without each other's "
        f"answers. An image was kept if {rules[config.rule]} (at least {config.min_answers} answers). "
        + _owner_words(sum(row.by_owner for row in rows))
        + _form_words(plan, *suggestions)
        + _agreement_words(agreement),
        "Who were the annotators, and what were they paid?\n\n" + TO_WRITE,
        "## Cleaning\n\nLeft out by the screen: "
        + (", ".join(f"{reason} {count:,}" for reason, count in figures["dropped"].items()) or "nothing")
        + f". {_screen_words(figures['funnel'])} What is left of one author, page or scene is in one split.",
        "## Uses\n\nFor research on affective computing. Labels are what a few people said, not facts about an image "
        "or about people in it; they are no ground for decisions about anybody.",
        "## Distribution\n\n"
        + (
            f"Labels and texts: {config.licence}. "
            if config.licence
            else "The licence of labels and texts is not decided. "
        )
        + "The images belong to their authors.\n\n"
        + "\n".join(licence_report(row.licence for row in rows)),
        "## Maintenance\n\nAn image is taken down by its address or hash: `uniemox curate takedown`.\n\n" + TO_WRITE,
    ]
    if config.citation:
        parts.append(f"## Citation\n\n{config.citation}")
    return "\n\n".join(parts) + "\n"


def _source_words(sources: Mapping[str, int]) -> str:
    ways = {
        "folder": "from a folder of files that its makers had already",
        "csv": "from a table of addresses that its makers wrote",
    }
    found = [
        f"{count:,} {ways.get(name, f'found by search words for each label (`plan.json`) at {name}')}"
        for name, count in sorted(sources.items(), key=lambda pair: -pair[1])
    ]
    return f"Images: {'; '.join(found)}."


def _screen_words(funnel: Mapping[str, int]) -> str:
    return "Near duplicates were removed." if funnel["passed the screen"] else "They were not screened for duplicates."


def _metadata_words(metadata: Mapping[str, Any]) -> str:
    if metadata["asked"] == "keep":
        return "What cameras and programs wrote into the files, such as place and time, is unchanged."
    left = metadata["still there"]
    rest = f", but for {left:,} in formats other than JPEG, PNG and WebP" if left else ""
    return f"What cameras and programs wrote into the files, such as place, time and names, was taken out{rest}."


def _owner_words(count: int) -> str:
    if not count:
        return ""
    return (
        f"Of {count:,} images those who made it decided the label, because annotators did not agree or it was no label "
        "of theirs (`decided` in `provenance.csv`); `soft_labels.csv` has what the annotators said. "
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
        terms = terms_of(name)
        cell = name.replace("|", "\\|")
        lines.append(f"| {cell} | {count} | {' | '.join(words[term] for term in terms)} |")
        unknown += count * (terms.needs_credit is None)
        closed += count * (terms.allows_commerce is False)
        fixed += count * (terms.allows_changes is False)
    total = (
        f"{counts.total()} images; {unknown} without a known licence, {closed} exclude commercial use, {fixed} changes."
    )
    lines += ["", total]
    if unknown:
        lines.append(
            "An image without a known licence belongs to somebody: unless a law permits research, do not pass it on."
        )
    return lines
