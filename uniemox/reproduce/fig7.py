"""Figure 7: how much is learned from a part of the labels."""

from uniemox.reproduce.plan import Plan, Row
from uniemox.reproduce.study import Study
from uniemox.reproduce.table3 import EXTRAS, OURS, SCRATCH, method_of

DEMO_FRACTIONS = (0.1, 0.25, 0.5, 1.0)
PAPER_FRACTIONS = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)


def fig7(study: Study) -> Plan:
    """Our pre-training, its start alone, and every method whose checkpoint was given, on growing parts of the data."""
    fractions = DEMO_FRACTIONS if study.is_demo else PAPER_FRACTIONS
    start = SCRATCH if study.is_demo else "dBOT"
    given = [name for name in study.weights if name not in {extra.name for extra in EXTRAS}]
    names = list(dict.fromkeys([start, *given, OURS]))
    rows = []
    for target in study.targets:
        for name in names:
            method, network = method_of(study, name)
            cells = {f"{part:.0%}": study.cell(method, target, fraction=part) for part in fractions}
            label = f"{name}, {target.name}" if len(study.targets) > 1 else name
            rows.append(Row(label, cells, network=network))
    about = (
        "A smaller part of every class is contained in a larger one, and the same for all methods of a seed. All train "
        "for the same number of epochs, so that less data are fewer steps too.",
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
