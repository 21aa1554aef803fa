"""What the experiment found: one page of tables and drawings, and the same as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.files import write_text
from uniemox.html import UNKNOWN, Html, element, page, table
from uniemox.reproduce.evidence.answers import ANSWERS, Answers, read_answers, right
from uniemox.reproduce.evidence.fusions import ALL as ALL_IMAGES
from uniemox.reproduce.evidence.fusions import PEOPLE, ROWS, SCENE
from uniemox.reproduce.evidence.plan import (
    ALL,
    COLOURS,
    FULL,
    PLAIN,
    SCRATCH,
    SHARES,
    TEACHER,
    TUNED_SHARES,
    VARIANTS,
    Evidence,
)
from uniemox.reproduce.evidence.probes import NEIGHBOURS, REGRESSION, probe_name
from uniemox.reproduce.evidence.statistics import Hits, Recall, mean_recall, stacked
from uniemox.reproduce.execute import seconds_of
from uniemox.reproduce.plan import Run
from uniemox.reproduce.plots import Dot, dots
from uniemox.reproduce.results import find_evaluation, is_done

NAME = "evidence"
PRIMARY_SHARE = 0.1
BASELINES = (COLOURS, TEACHER)
NOTE = (
    "Mean recall of the classes on images that were held out of everything, percent, with 95 % intervals over images, "
    "seeds of pre-training and seeds of labels together (bootstrap). Differences are paired, from plain distillation "
    "with the same seeds, and secondary but for the one outcome above. Chance is one class of all: {chance:.1f} %."
)


def write_evidence(planned: Evidence) -> Path:
    """Write ROOT/evidence.html and .json from the runs that are done. Returns the page. Raises DataError."""
    found = Findings(planned)
    path = planned.options.root / f"{NAME}.html"
    try:
        write_text(path, page("Does the method help?", _parts(found)))
        write_text(path.with_suffix(".json"), json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another --out") from error
    return path


class Findings:
    """Of the runs that are done."""

    def __init__(self, planned: Evidence) -> None:
        self.planned = planned
        self.answers = {at: read_answers(run.folder / ANSWERS) for at, run in planned.probes.items() if is_done(run)}
        self.seconds = seconds_of(planned.options.root)

    def probed(self, row: str, method: str, share: float, part: str = "test") -> Recall | None:
        """The mean recall of a row's probes; None where they are not done."""
        hits = self._probe_hits(row, method, share, part)
        return None if hits is None else mean_recall(hits[0], hits[1])

    def gained(self, row: str, method: str, share: float, part: str = "test", base: str = PLAIN) -> Recall | None:
        """By how much a row's probes are above those of another, over the seeds that both have."""
        seeds = [seed for seed in self.planned.seeds(row) if seed in self.planned.seeds(base)]
        ours = self._probe_hits(row, method, share, part, seeds)
        theirs = self._probe_hits(base, method, share, part, seeds)
        if row == base or ours is None or theirs is None or ours[0].shape != theirs[0].shape:
            return None
        return mean_recall(ours[0], ours[1], theirs[0])

    def _probe_hits(
        self, row: str, method: str, share: float, part: str, seeds: Sequence[int] | None = None
    ) -> tuple[Hits, NDArray[np.int64]] | None:
        seeds = self.planned.seeds(row) if seeds is None else seeds
        names = [probe_name(method, share, seed) for seed in range(self.planned.options.budget.label_seeds)]
        names = names[:1] if share == 1 and part in ("test", "val") else names
        every = [self.answers[row, seed][0].get(part) for seed in seeds if (row, seed) in self.answers]
        known = [one for one in every if one is not None]
        if not known or len(known) < len(seeds):
            return None
        return stacked([list(right(one, names)) for one in known]), known[0].labels

    def tuned(self, row: str, share: float, base: str | None = None) -> Recall | None:
        """The mean recall of a row's fine-tuning runs, or by how much it is above that of another's."""
        seeds = sorted(seed for name, seed, part in self.planned.tuned if (name, part) == (row, share))
        ours, theirs = ([self._tuned_hits(one, seed, share) for seed in seeds] for one in (row, base or row))
        if not ours or any(one is None for one in (*ours, *theirs)) or row == base:
            return None
        labels = ours[0][1]  # type: ignore[index]
        hits, others = (stacked([[one[0]] for one in several if one is not None]) for several in (ours, theirs))
        return mean_recall(hits, labels, others if base else None)

    def _tuned_hits(self, row: str, seed: int, share: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]] | None:
        run = self.planned.tuned.get((row, seed, share))
        found = None if run is None else find_evaluation(run)
        if found is None or found.predictions is None:
            return None
        order = np.argsort(found.predictions.keys)
        return found.predictions.is_right[order], found.predictions.labels[order]

    def fused(self) -> dict[str, dict[str, tuple[Recall, Recall | None]]]:
        """Part A: by images and by fusion, mean recall and what it is above the scene alone."""
        if not is_done(self.planned.fusions):
            return {}
        parts, _ = read_answers(self.planned.fusions.folder / ANSWERS)
        return {part: {name: self._fused(parts[part], name) for name in ROWS} for part in (ALL_IMAGES, PEOPLE)}

    def _fused(self, answers: Answers, name: str) -> tuple[Recall, Recall | None]:
        ours, scene = (
            stacked(
                [
                    [hit]
                    for hit in right(
                        answers, [f"{one} {seed}" for seed in range(self.planned.options.budget.fusion_seeds)]
                    )
                ]
            )
            for one in (name, SCENE)
        )
        return mean_recall(ours, answers.labels), None if name == SCENE else mean_recall(ours, answers.labels, scene)

    @property
    def chance(self) -> float:
        """One class of all."""
        known = next(iter(self.answers.values()), None)
        return 0.0 if known is None else 1 / len(np.unique(known[0]["test"].labels))

    def chance_on(self, part: str) -> float | None:
        """One class of all that are scored on another data set."""
        known = next((one[part] for one, _ in self.answers.values() if part in one), None)
        return None if known is None else 1 / len(np.unique(known.labels))

    def minutes(self, run: Run) -> float | None:
        """What a run took."""
        return self.seconds[run.key] / 60 if run.key in self.seconds else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON: shares of 1."""
        planned, parts = self.planned, ("test", "val")
        primary = self.gained(ALL, REGRESSION, PRIMARY_SHARE)
        probes = [
            {
                "row": row,
                "method": method,
                "share": share,
                "part": part,
                "recall": _plain(self.probed(row, method, share, part)),
                "over_plain": _plain(self.gained(row, method, share, part)),
            }
            for row in planned.rows
            for method in (REGRESSION, NEIGHBOURS)
            for share in SHARES
            for part in parts
        ]
        tuned = [
            {
                "row": row,
                "share": share,
                "recall": _plain(self.tuned(row, share)),
                "over_plain": _plain(self.tuned(row, share, PLAIN)),
            }
            for row in (*planned.rows, SCRATCH)
            if row not in BASELINES
            for share in TUNED_SHARES
        ]
        transfer = [
            {
                "row": row,
                "data": data,
                "recall": _plain(self.probed(row, REGRESSION, 1.0, data)),
                "over_plain": _plain(self.gained(row, REGRESSION, 1.0, data)),
            }
            for row in planned.rows
            for data in planned.options.transfer
        ]
        fused = [
            {"images": part, "row": name, "recall": _plain(recall), "over_scene": _plain(gain)}
            for part, rows in self.fused().items()
            for name, (recall, gain) in rows.items()
        ]
        runs = [
            {"name": run.name, "command": run.command, "is_done": is_done(run), "seconds": self.seconds.get(run.key)}
            for run in planned.runs
        ]
        return {
            "name": NAME,
            "is_quick": planned.options.budget != FULL,
            "budget": asdict(planned.options.budget),
            "outcome": _plain(primary),
            "chance": self.chance,
            "probes": probes,
            "tuned": tuned,
            "transfer": transfer,
            "fusion": fused,
            "runs": runs,
        }


def _parts(found: Findings) -> Iterator[Html]:
    planned = found.planned
    yield element("header", element("h1", "Does the method help?"), element("p", _outcome(found)))
    if planned.options.budget != FULL:
        yield element("p", "Made with --quick, on a tenth of the images: this page proves nothing.", class_="missing")
    done = sum(is_done(run) for run in planned.runs)
    yield element(
        "p", f"{done} of {len(planned.runs)} runs are done. {NOTE.format(chance=100 * found.chance)}", class_="note"
    )
    yield _drawing(found)
    for method, title in (
        (REGRESSION, "Logistic regression on frozen features"),
        (NEIGHBOURS, "20 nearest neighbours"),
    ):
        headings = ["encoder", *(f"{share:.0%} of the labels" for share in SHARES), f"over {PLAIN}, 10 %"]
        rows = [
            [
                row,
                *(_shown(found.probed(row, method, share)) for share in SHARES),
                _difference(found.gained(row, method, PRIMARY_SHARE)),
            ]
            for row in planned.rows
        ]
        yield element("section", element("h2", title), table(title, headings, rows))
    yield _tuned_table(found)
    yield _fusion_tables(found)
    yield _transfer_table(found)
    yield _cost_table(found)


def _outcome(found: Findings) -> str:
    """The one outcome, in words."""
    primary = found.gained(ALL, REGRESSION, PRIMARY_SHARE)
    if primary is None:
        return "The runs that the outcome needs are not done."
    words = (
        f"The outcome: {ALL} minus {PLAIN}, equal compute, 10 % of the labels, logistic regression: "
        f"{_difference(primary)} points of mean recall over {primary.seeds} seeds of pre-training. "
    )
    if primary.low > 0:
        return words + "The method helped here."
    if primary.high < 0:
        return words + "The method was worse than plain distillation here."
    visible = f"{100 * primary.visible:.1f} points"
    return words + f"A difference was not seen; one under {visible} would be missed more often than one time in five."


def _drawing(found: Findings) -> Html:
    title = "Logistic regression with 10 % of the labels, mean recall"
    known = {row: found.probed(row, REGRESSION, PRIMARY_SHARE) for row in found.planned.rows}
    rows = {row: Dot(one.value, one.low, one.high) for row, one in known.items() if one is not None}
    if not rows:
        return Html("")
    return element("figure", dots(title, rows, chance=found.chance), element("figcaption", f"{title}. Dashed: chance."))


def _tuned_table(found: Findings) -> Html:
    names = [row for row in (*found.planned.rows, SCRATCH) if row not in BASELINES]
    headings = ["start"]
    for share in TUNED_SHARES:
        headings += [f"{share:.0%} of the labels", f"over {PLAIN}"]
    rows = []
    for row in names:
        cells = [row]
        for share in TUNED_SHARES:
            cells += [_shown(found.tuned(row, share)), _difference(found.tuned(row, share, PLAIN))]
        rows.append(cells)
    for row in BASELINES:  # probes: the least and the most that tuning is compared with
        cells = [f"{row}, logistic regression"]
        for share in TUNED_SHARES:
            cells += [_shown(found.probed(row, REGRESSION, share)), UNKNOWN]
        rows.append(cells)
    title = "Fine-tuned"
    return element("section", element("h2", title), table(title, headings, rows))


def _fusion_tables(found: Findings) -> Html:
    title = "Fusion alone, on the teacher's frozen networks"
    fused = found.fused()
    rows = []
    for name in ROWS:
        cells = [name]
        for part in fused.values():
            recall, gain = part[name]
            cells += [_shown(recall), _difference(gain)]
        rows.append(cells)
    colours, teacher = (found.probed(row, REGRESSION, 1.0) for row in BASELINES)
    rows += [
        [row, _shown(one), UNKNOWN, UNKNOWN, UNKNOWN] for row, one in zip(BASELINES, (colours, teacher), strict=True)
    ]
    headings = ["views", "all images", f"over {SCENE}", "images with people", f"over {SCENE}"]
    return element(
        "section", element("h2", title), table(title, headings, rows) if fused else element("p", "Not done.")
    )


def _transfer_table(found: Findings) -> Html:
    sets = found.planned.options.transfer
    names = [row for row in found.planned.rows if row != TEACHER]
    headings = ["encoder"]
    for source in sets:
        headings += [source.rpartition("/")[2], f"over {PLAIN}"]
    rows = []
    for row in names:
        cells = [row]
        for source in sets:
            cells += [
                _shown(found.probed(row, REGRESSION, 1.0, source)),
                _difference(found.gained(row, REGRESSION, 1.0, source)),
            ]
        rows.append(cells)
    chances = [f"{100 * share:.1f}" if share else UNKNOWN for share in map(found.chance_on, sets)]
    rows.append(["chance", *(cell for chance in chances for cell in (chance, UNKNOWN))])
    title = "Other data sets: logistic regression, five folds"
    return element("section", element("h2", title), table(title, headings, rows))


def _cost_table(found: Findings) -> Html:
    planned, budget = found.planned, found.planned.options.budget
    rows = []
    for (row, seed), run in planned.pretrained.items():
        if seed == 0:
            cost = VARIANTS[row].cost if row in VARIANTS else 1.0
            epochs = budget.epochs / cost if row in VARIANTS else budget.start_epochs
            minutes = found.minutes(run)
            rows.append([row, f"{epochs:.1f}", f"{cost:.2f}", UNKNOWN if minutes is None else f"{minutes:.1f}"])
    title = "What pre-training cost"
    headings = ["encoder", "epochs", "core seconds of an image, over plain distillation", "minutes, beside another run"]
    return element("section", element("h2", title), table(title, headings, rows))


def _shown(found: Recall | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _difference(found: Recall | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _plain(found: Recall | None) -> dict[str, Any] | None:
    return None if found is None else {name: round(value, 5) for name, value in asdict(found).items()}
