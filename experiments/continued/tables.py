"""Tables of the page, from stored outcomes alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from experiments.continued.outcomes import figures_of, read_baselines, read_labels, read_transfer, summary
from experiments.continued.plan import ARMS, BUDGETS, CONTRASTS, HALVES, SMALLEST_EFFECT, START, Job, Profile
from experiments.continued.statistics import Difference, difference

TITLES = {"tenth": "a tenth of the labels", "all": "all labels", "grey": "grey copies, a tenth of the labels"}
# Smallest difference of log-likelihood of interest; the verdict does not depend on it.
NATS = 0.02
Results = Mapping[Job, Mapping[str, tuple[float, float]]]


def read(outcomes: Path, profile: Profile) -> dict[Job, dict[str, tuple[float, float]]]:
    """Return recall and log-likelihood of all finished jobs, by budget."""
    labels = read_labels(outcomes)
    jobs = [Job(arm, half, seed) for arm in ARMS for half in HALVES for seed in seeds_of(arm, profile)]
    return {job: summary(job, outcomes, labels) for job in jobs if job.path(outcomes).exists()}


def seeds_of(arm: str, profile: Profile) -> range:
    """Return the seeds of an arm; the start has one."""
    return range(1 if arm == START else profile.seeds)


def paired(results: Results, first: str, second: str, budget: str, figure: int) -> dict[Job, float]:
    """Return the differences of two arms by job of the first; a start is compared with every seed.

    Args:
        results: Recall and log-likelihood of all finished jobs.
        first: Arm.
        second: Arm that is subtracted.
        budget: Outcome to compare.
        figure: Figure to compare: 0 recall, 1 log-likelihood in nats.
    """
    values = {}
    for job, scores in results.items():
        other = Job(second, job.half, 0 if second == START else job.seed)
        if job.arm == first and other in results:
            values[job] = scores[budget][figure] - results[other][budget][figure]
    return values


def means_by_start(values: Mapping[Job, float]) -> list[float]:
    """Return the mean over the seeds of each half. The seeds of a half continue one start, so they are one unit."""
    by_half = {half: [value for job, value in values.items() if job.half == half] for half in HALVES}
    return [mean(of_half) for of_half in by_half.values() if of_half]


def contrast(results: Results, name: str, budget: str, figure: int = 0) -> Difference | None:
    """Return one of the plan's contrasts with the start as the unit; None before both halves have a value."""
    values = means_by_start(paired(results, *CONTRASTS[name], budget, figure))
    return _difference(values, figure)


def contrast_given_starts(results: Results, name: str, budget: str, figure: int = 0) -> Difference | None:
    """Return a contrast with the seed as the unit, which holds for these two starts only; None before two values."""
    values = list(paired(results, *CONTRASTS[name], budget, figure).values())
    return _difference(values, figure)


def _difference(values: Sequence[float], figure: int) -> Difference | None:
    if len(values) > 1:
        return difference(values, NATS if figure else SMALLEST_EFFECT)
    return None


def print_tables(outcomes: Path, profile: Profile) -> None:
    """Print the tables in Markdown."""
    results = read(outcomes, profile)
    control = contrast(results, "positive control", "tenth")
    has_control = control is not None and control.interval[0] > 0
    print(f"Positive control: {'passed' if has_control else 'not passed, so there is no verdict'}.\n")
    for budget in BUDGETS:
        print(f"**{TITLES[budget]}**\n")
        print("| arm | runs | recall, % | log-likelihood, nats |")
        print("| --- | --- | --- | --- |")
        for arm in ARMS:
            scores = [scores_by_budget[budget] for job, scores_by_budget in results.items() if job.arm == arm]
            _print_scores(arm, scores)
        for name, halves in read_baselines(outcomes).items():
            _print_scores(f"*{name}*", [scores[budget] for scores in halves.values() if budget in scores])
        print("\n| contrast | difference | halves A, B | over starts, points | p of equivalence | verdict |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, (first, second) in CONTRASTS.items():
            over_starts = contrast(results, name, budget)
            if over_starts is None:
                continue
            # The plan's rule concerns the primary outcome alone, and only if the control has passed.
            verdict = "; ".join(over_starts.verdicts()) if budget == "tenth" and has_control else ""
            cells = (
                name,
                f"{first} − {second}",
                ", ".join(f"{value:+.2f}" for value in over_starts.values),
                _in_words(over_starts, 1),
                f"{over_starts.equivalence:.3f}",
                verdict,
            )
            print(f"| {' | '.join(cells)} |")
        print("\n| contrast, given these two starts | values | recall, points | log-likelihood, nats |")
        print("| --- | --- | --- | --- |")
        for name in CONTRASTS:
            recall_difference = contrast_given_starts(results, name, budget)
            nats_difference = contrast_given_starts(results, name, budget, figure=1)
            if recall_difference is None or nats_difference is None:
                continue
            words = (_in_words(recall_difference, 1), _in_words(nats_difference, 3))
            print(f"| {name} | {len(recall_difference.values)} | {' | '.join(words)} |")
        print()
    print_transfer(outcomes, profile)
    print("**Starts**: recall on the own half after each stage, %\n")
    for half in HALVES:
        job = Job(START, half, 0)
        if job in results:
            stages = [f"{value:.1f}" for name, value in sorted(figures_of(job, outcomes).items()) if "stage" in name]
            print(f"- half {half}: {', '.join(stages)}")


def _print_scores(name: str, scores: Sequence[Sequence[float]]) -> None:
    """Print a row with the means of recall and log-likelihood; nothing without scores."""
    if scores:
        recall, nats = (mean(values) for values in zip(*scores, strict=True))
        print(f"| {name} | {len(scores)} | {recall:.1f} | {nats:.3f} |")


def print_transfer(outcomes: Path, profile: Profile) -> None:
    """Print the scores on data of other sources, if there are any; they decide nothing."""
    figures = read_transfer(outcomes)
    if not figures:
        return
    names = list(next(iter(figures.values())))
    jobs = [Job(arm, half, seed) for arm in ARMS for half in HALVES for seed in seeds_of(arm, profile)]
    # In the form of the other results, with the name of the data in the place of the budget.
    results = {
        job: {name: (value, 0.0) for name, value in figures[job.path(outcomes).stem].items()}
        for job in jobs
        if job.path(outcomes).stem in figures
    }
    print("**Other data**\n")
    print(f"| arm | runs | {' | '.join(names)} |")
    print(f"| --- | --- |{' --- |' * len(names)}")
    for arm in ARMS:
        rows = [scores for job, scores in results.items() if job.arm == arm]
        if rows:
            cells = [f"{mean(row[name][0] for row in rows):.1f}" for name in names]
            print(f"| {arm} | {len(rows)} | {' | '.join(cells)} |")
    print(f"\n| contrast, given these two starts | difference | {' | '.join(names)} |")
    print(f"| --- | --- |{' --- |' * len(names)}")
    for contrast_name, (first, second) in CONTRASTS.items():
        differences = [contrast_given_starts(results, contrast_name, name) for name in names]
        cells = ["–" if found is None else _in_words(found, 1) for found in differences]
        print(f"| {contrast_name} | {first} − {second} | {' | '.join(cells)} |")
    print()


def _in_words(result: Difference, digits: int) -> str:
    low, high = result.interval
    return f"{result.mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
