"""Tables of the page, from stored outcomes alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from experiments.continued.statistics import Difference, difference
from experiments.published_start.outcomes import (
    BASELINES,
    chosen_rate,
    chosen_tuning_rate,
    read_choice,
    read_elsewhere,
    read_labels,
    read_means,
)
from experiments.published_start.plan import (
    ARMS,
    BUDGETS,
    CLAIMS,
    CONTRASTS,
    CONTROL,
    SECONDARY,
    START,
    ChoiceJob,
    Job,
    Study,
    choice_jobs,
    jobs_of,
)
from experiments.published_start.scoring import Mean
from experiments.published_start.statistics import BOUND_SHARE, holm, p_value, smallest_detectable, verdict

Results = Mapping[Job, Mapping[str, Mean]]


def read(outcomes: Path, study: Study) -> dict[Job, dict[str, Mean]]:
    """Return the means of all finished jobs, by budget."""
    jobs = [job for job in jobs_of(study) if job.path(outcomes).exists()]
    if not jobs:
        return {}
    labels = read_labels(outcomes)
    return {job: read_means(job, outcomes, labels) for job in jobs}


def at(results: Results, job: Job, budget: str) -> Mean | None:
    """Return a job's means; the frozen start is the same for every seed."""
    if job.arm == START and not is_tuned(budget):
        job = Job(START, 0)
    return results.get(job, {}).get(budget)


def paired(results: Results, study: Study, name: str, budget: str, figure: str = "recall") -> list[float]:
    """Return the differences of a contrast, one per seed that has both arms."""
    first, second = CONTRASTS[name]
    values = []
    for seed in range(study.profile.seeds):
        minuend = at(results, Job(first, seed), budget)
        subtrahend = at(results, Job(second, seed), budget)
        if minuend is not None and subtrahend is not None:
            values.append(getattr(minuend, figure) - getattr(subtrahend, figure))
    return values


def print_tables(outcomes: Path, study: Study) -> None:
    """Print the tables in Markdown."""
    results = read(outcomes, study)
    total = len(list(jobs_of(study)))
    print(f"{len(results)} of {total} encoders are scored.\n")
    print_choice(outcomes, study)
    baselines: dict[str, dict[str, list[float]]] = {}
    if (outcomes / BASELINES).exists():
        baselines = json.loads((outcomes / BASELINES).read_text("utf-8"))
    for budget in (*BUDGETS, *SECONDARY):
        rows = [
            (arm, [at(results, Job(arm, seed), budget) for seed in seeds_of(arm, budget, study)])
            for arm in (START, *ARMS)
        ]
        found = {arm: [scores for scores in values if scores is not None] for arm, values in rows}
        if not any(found.values()):
            continue
        print(f"**{budget[0].upper()}{budget[1:]}**\n")
        print("| arm | runs | recall, % | log-likelihood, nats |")
        print("| --- | --- | --- | --- |")
        for arm, values in found.items():
            if values:
                print(f"| {arm} | {len(values)} | {means(values)} |")
        for name, by_budget in baselines.items():
            if budget in by_budget:
                print(f"| *{name}* | 1 | {means([Mean(*by_budget[budget])])} |")
        print()
        print_contrasts(results, study, budget)
    print_elsewhere(outcomes, study)


def seeds_of(arm: str, budget: str, study: Study) -> range:
    """Return the seeds of an arm; the frozen start has one."""
    return range(1 if arm == START and not is_tuned(budget) else study.profile.seeds)


def is_tuned(budget: str) -> bool:
    """Return True for a budget in which the encoder is fine-tuned, so that the start has seeds, too."""
    return budget.startswith("fine-tuning")


def means(values: Sequence[Mean]) -> str:
    """Return the means of recall and log-likelihood as cells of a row."""
    return f"{mean(value.recall for value in values):.1f} | {mean(value.log_likelihood for value in values):.3f}"


def print_choice(outcomes: Path, study: Study) -> None:
    """Print the learning rates and what chose them."""
    done = [job for job in choice_jobs(study) if job.path(outcomes).exists()]
    if not done:
        return
    print("**Learning rates**: log-likelihood of a probe on the images that choose, nats; in bold: chosen\n")
    print(f"| arm | {' | '.join(f'{lr:g}' for lr in study.rates)} |")
    print(f"| --- |{' --- |' * len(study.rates)}")
    for arm in ARMS:
        jobs = [ChoiceJob(arm, lr) for lr in study.rates]
        if not set(jobs) <= set(done):
            continue
        best = chosen_rate(arm, study, outcomes)
        cells = [f"{read_choice(job, outcomes).log_likelihood:.4f}" for job in jobs]
        bold = [f"**{cell}**" if job.lr == best else cell for job, cell in zip(jobs, cells, strict=True)]
        print(f"| {arm} | {' | '.join(bold)} |")
    if len(done) == len(list(choice_jobs(study))):
        print(
            f"\nFine-tuning: {chosen_tuning_rate(study, outcomes):g}, with which the supervised arm's own head is best."
        )
    print()


def print_contrasts(results: Results, study: Study, budget: str) -> None:
    """Print the differences of a budget, and its verdicts if all seeds are scored and it has one."""
    values = {name: paired(results, study, name, budget) for name in CONTRASTS}
    values = {name: differences for name, differences in values.items() if len(differences) > 1}
    if not values:
        return
    is_complete = all(len(differences) == study.profile.seeds for differences in values.values())
    control = values.get(CONTROL)
    has_control = control is not None and difference(control, 1.0).interval[0] > 0
    bound = BOUND_SHARE * mean(control) if control is not None and has_control else None
    claims = [name for name in CLAIMS if name in values]
    corrected = dict(zip(claims, holm([p_value(difference(values[name], 1.0)) for name in claims]), strict=True))
    print(
        "| contrast | difference | seeds | recall, points | nats | p (Holm) | detectable | p of equivalence | verdict |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, differences in values.items():
        result = difference(differences, bound or 1.0)
        nats = difference(paired(results, study, name, budget, "log_likelihood"), 1.0)
        tested = name in corrected and bound is not None
        words = ""
        if tested and is_complete and budget in BUDGETS and bound is not None:
            words = "; ".join(verdict(differences, corrected[name], bound))
        cells = (
            name,
            " − ".join(CONTRASTS[name]),
            str(len(differences)),
            in_words(result, 1),
            in_words(nats, 3),
            f"{corrected[name]:.3f}" if name in corrected else "",
            f"{smallest_detectable(differences):.1f}",
            f"{result.equivalence:.3f}" if tested else "",
            words,
        )
        print(f"| {' | '.join(cells)} |")
    print()
    if not is_complete:
        print("Some seeds are missing, so there is no verdict yet.\n")
    elif not has_control:
        print("The positive control is not above 0, so this budget has no verdict.\n")
    elif budget in BUDGETS:
        print(f"The bound of equivalence is ±{bound:.2f} points.\n")


def print_elsewhere(outcomes: Path, study: Study) -> None:
    """Print the scores on data of other sources, if there are any; they decide nothing."""
    figures = {
        job: read_elsewhere(job, outcomes)
        for job in jobs_of(study)
        if job.path(outcomes).exists() and (job.arm != START or job.seed == 0)
    }
    names = sorted({name for row in figures.values() for name in row})
    if not names:
        return
    print("**Other data**\n")
    print(f"| arm | runs | {' | '.join(names)} |")
    print(f"| --- | --- |{' --- |' * len(names)}")
    for arm in (START, *ARMS):
        rows = [row for job, row in figures.items() if job.arm == arm]
        if rows:
            print(f"| {arm} | {len(rows)} | {' | '.join(f'{mean(row[name] for row in rows):.1f}' for name in names)} |")
    print(f"\n| contrast | difference | {' | '.join(names)} |")
    print(f"| --- | --- |{' --- |' * len(names)}")
    for contrast, (first, second) in CONTRASTS.items():
        cells = []
        for name in names:
            values = [
                row[name] - figures[Job(second, 0 if second == START else job.seed)][name]
                for job, row in figures.items()
                if job.arm == first and Job(second, 0 if second == START else job.seed) in figures
            ]
            cells.append(in_words(difference(values, 1.0), 1) if len(values) > 1 else "–")
        print(f"| {contrast} | {first} − {second} | {' | '.join(cells)} |")
    print()


def in_words(result: Difference, digits: int) -> str:
    """Return mean and interval."""
    low, high = result.interval
    return f"{result.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
