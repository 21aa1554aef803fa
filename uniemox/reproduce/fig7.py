"""Figure 7: how much is learned from a part of the labels."""

from dataclasses import replace

from uniemox.reproduce.baseline import HISTOGRAM, NETWORK, histogram_cell, with_baseline
from uniemox.reproduce.plan import Plan, TableRow
from uniemox.reproduce.study import Study
from uniemox.reproduce.table3 import BUDGET, EXTRAS, OURS, SCRATCH, method_of

DEMO_FRACTIONS = (0.1, 0.25, 0.5, 1.0)
PAPER_FRACTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def fig7(study: Study) -> Plan:
    """Our pre-training, its start alone, and every method whose checkpoint was given, on growing parts of the data."""
    fractions = DEMO_FRACTIONS if study.is_demo else PAPER_FRACTIONS
    start = SCRATCH if study.is_demo else "dBOT"
    given = [name for name in study.weights if name not in {extra.name for extra in EXTRAS}]
    names = list(dict.fromkeys([start, *given, OURS]))
    rows: list[TableRow] = []
    for target in study.targets:
        suffix = f", {target.name}" if len(study.targets) > 1 else ""
        own = []
        for name in names:
            method, network = method_of(study, name)
            if method.is_random:  # each of its runs sees as many images as our pre-training: one seed is what fits
                method = replace(method, starts={study.seeds[0]: method.starts[study.seeds[0]]})
            cells = {f"{part:.0%}": study.cell(method, target, fraction=part) for part in fractions}
            own.append(TableRow(name + suffix, cells, network=network))
        histograms = {f"{part:.0%}": histogram_cell(study, target, fraction=part) for part in fractions}
        rows += with_baseline(own, TableRow(HISTOGRAM + suffix, histograms, network=NETWORK))
    about = (
        "A smaller part of every class is contained in a larger one, and the same for all methods of a seed. All train "
        "for the same number of epochs, so that less data are fewer steps too."
        + (f" Random weights: {BUDGET}; one seed." if study.is_demo else ""),
        "The paper shows one run of each as a curve without numbers.",
    )
    return Plan(
        name="fig7",
        title="Figure 7: parts of the training data",
        scale=study.scale,
        about=about,
        columns=tuple(f"{part:.0%}" for part in fractions),
        rows=tuple(rows),
        reference=rows[0].name if len(study.targets) == 1 else None,
        is_curve=True,
    )
