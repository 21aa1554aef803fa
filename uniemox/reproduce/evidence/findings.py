"""What the runs of the experiment found: mean recalls and differences, by row."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.reproduce.evidence.answers import ANSWERS, ProbeAnswers, read_answers, right
from uniemox.reproduce.evidence.fusions import ALL_IMAGES, PEOPLE, ROWS, SCENE
from uniemox.reproduce.evidence.plan import Evidence
from uniemox.reproduce.evidence.probes import NEIGHBOURS, REGRESSION, probe_name
from uniemox.reproduce.evidence.rows import ALL, COLOURS, FULL, PLAIN, SCRATCH, SHARES, TEACHER, TUNED_SHARES
from uniemox.reproduce.evidence.statistics import Hits, Recall, mean_recall, stacked
from uniemox.reproduce.execute import seconds_of
from uniemox.reproduce.plan import Run
from uniemox.reproduce.results import find_evaluation, is_done

NAME = "evidence"
PRIMARY_SHARE = 0.1
BASELINES = (COLOURS, TEACHER)


class EvidenceFindings:
    """Scores of the runs that are done."""

    def __init__(self, planned: Evidence) -> None:
        self.planned = planned
        self.answers = {at: read_answers(run.folder / ANSWERS) for at, run in planned.probes.items() if is_done(run)}
        self.seconds = seconds_of(planned.options.root)

    def probed(self, row: str, method: str, share: float, part: str = "test") -> Recall | None:
        """The mean recall of a row's probes; None where they are not done."""
        hits = self._probe_hits(row, method, share, part)
        return None if hits is None else mean_recall(hits[0], hits[1])

    def gained(self, row: str, method: str, share: float, part: str = "test", base: str = PLAIN) -> Recall | None:
        """By how much a row's probes are above those of another, over the seeds of which both are done."""
        seeds = [seed for seed in self._seeds(row) if seed in self._seeds(base)]
        ours = self._probe_hits(row, method, share, part, seeds)
        theirs = self._probe_hits(base, method, share, part, seeds)
        if row == base or ours is None or theirs is None or ours[0].shape != theirs[0].shape:
            return None
        return mean_recall(ours[0], ours[1], theirs[0])

    def _seeds(self, row: str) -> list[int]:
        """Of pre-training, whose probes are done."""
        return [seed for seed in self.planned.seeds(row) if (row, seed) in self.answers]

    def _probe_hits(
        self, row: str, method: str, share: float, part: str, seeds: Sequence[int] | None = None
    ) -> tuple[Hits, NDArray[np.int64]] | None:
        seeds = self._seeds(row) if seeds is None else seeds
        names = [probe_name(method, share, seed) for seed in range(self.planned.options.budget.label_seeds)]
        names = names[:1] if share == 1 and part in ("test", "val") else names
        known = [one for seed in seeds if (one := self.answers[row, seed][0].get(part)) is not None]
        if not known:
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

    def _fused(self, answers: ProbeAnswers, name: str) -> tuple[Recall, Recall | None]:
        seeds = range(self.planned.options.budget.fusion_seeds)
        by_name = {one: right(answers, [f"{one} {seed}" for seed in seeds]) for one in (name, SCENE)}  # (S, N) each
        ours, scene = by_name[name][:, None], by_name[SCENE][:, None]
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


def _plain(found: Recall | None) -> dict[str, Any] | None:
    return None if found is None else {name: round(value, 5) for name, value in asdict(found).items()}
