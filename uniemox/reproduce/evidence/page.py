"""What the experiment found: one page of tables and drawings, and the same as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

from uniemox.errors import DataError
from uniemox.files import write_text
from uniemox.html import UNKNOWN, Html, element, page, table
from uniemox.reproduce.evidence.findings import BASELINES, NAME, PRIMARY_SHARE, EvidenceFindings
from uniemox.reproduce.evidence.fusions import ROWS, SCENE
from uniemox.reproduce.evidence.plan import Evidence
from uniemox.reproduce.evidence.probes import NEIGHBOURS, REGRESSION
from uniemox.reproduce.evidence.rows import ALL, FULL, PLAIN, SCRATCH, SHARES, TUNED_SHARES, VARIANTS
from uniemox.reproduce.evidence.statistics import Recall
from uniemox.reproduce.plots import Dot, dots
from uniemox.reproduce.results import is_done

NOTE = (
    "Mean recall of the classes on images that were held out of everything, percent, with 95 % intervals over images, "
    "seeds of pre-training and seeds of labels together (bootstrap). Differences are paired, from plain distillation "
    "with the same seeds, and secondary but for the one outcome above. Chance is one class of all: {chance:.1f} %."
)


def write_evidence(planned: Evidence) -> Path:
    """Write ROOT/evidence.html and .json from the runs that are done. Returns the page. Raises DataError."""
    found = EvidenceFindings(planned)
    path = planned.options.root / f"{NAME}.html"
    try:
        write_text(path, page("Does the method help?", _parts(found)))
        write_text(path.with_suffix(".json"), json.dumps(found.as_dict(), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror}); choose another --out") from error
    return path


def _parts(found: EvidenceFindings) -> Iterator[Html]:
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
        rows.append(_chance_row(found, len(SHARES), 1))
        yield element("section", element("h2", title), table(title, headings, rows))
    yield _tuned_table(found)
    yield _fusion_tables(found)
    yield _transfer_table(found)
    yield _cost_table(found)


def _outcome(found: EvidenceFindings) -> str:
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


def _drawing(found: EvidenceFindings) -> Html:
    title = "Logistic regression with 10 % of the labels, mean recall"
    known = {row: found.probed(row, REGRESSION, PRIMARY_SHARE) for row in found.planned.rows}
    rows = {row: Dot(one.value, one.low, one.high) for row, one in known.items() if one is not None}
    if not rows:
        return Html("")
    return element("figure", dots(title, rows, chance=found.chance), element("figcaption", f"{title}. Dashed: chance."))


def _tuned_table(found: EvidenceFindings) -> Html:
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
    rows.append(["chance", *(2 * _chance_row(found, 1, 1)[1:])])
    title = "Fine-tuned"
    return element("section", element("h2", title), table(title, headings, rows))


def _fusion_tables(found: EvidenceFindings) -> Html:
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
    rows.append(["chance", *(2 * _chance_row(found, 1, 1)[1:])])
    headings = ["views", "all images", f"over {SCENE}", "images with people", f"over {SCENE}"]
    return element(
        "section", element("h2", title), table(title, headings, rows) if fused else element("p", "Not done.")
    )


def _transfer_table(found: EvidenceFindings) -> Html:
    sets = found.planned.options.transfer
    headings = ["encoder"]
    for source in sets:
        headings += [source.rpartition("/")[2], f"over {PLAIN}"]
    rows = []
    for row in found.planned.rows:
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


def _cost_table(found: EvidenceFindings) -> Html:
    planned, budget = found.planned, found.planned.options.budget
    rows = []
    for (row, seed), run in planned.pretrained.items():
        if seed == 0:
            cost = VARIANTS[row].cost if row in VARIANTS else 1.0
            epochs = VARIANTS[row].epochs(budget.epochs) if row in VARIANTS else budget.start_epochs
            minutes = found.minutes(run)
            rows.append([row, f"{epochs:.1f}", f"{cost:.2f}", UNKNOWN if minutes is None else f"{minutes:.1f}"])
    title = "What pre-training cost"
    headings = ["encoder", "epochs", "core seconds of an image, over plain distillation", "minutes, beside another run"]
    return element("section", element("h2", title), table(title, headings, rows))


def _chance_row(found: EvidenceFindings, scores: int, differences: int) -> list[str]:
    """One class of all, in so many columns; nothing in those of differences."""
    return ["chance", *[f"{100 * found.chance:.1f}"] * scores, *[UNKNOWN] * differences]


def _shown(found: Recall | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _difference(found: Recall | None) -> str:
    return UNKNOWN if found is None else f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
