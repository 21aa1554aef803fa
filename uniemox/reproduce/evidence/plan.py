"""The runs of the experiment: data, teacher, fusion alone, pre-trainings of equal compute, probes and fine-tuning."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniemox.data.sidecar import PERSONS, TEXTS
from uniemox.files import ENCODER, ONNX, SPLITS
from uniemox.reproduce.evidence.answers import ANSWERS
from uniemox.reproduce.evidence.features import HISTOGRAM, STORED
from uniemox.reproduce.evidence.rows import (
    COLOURS,
    FULL,
    NETWORK,
    PLAIN,
    PRETRAINING,
    PRIMARY,
    SCRATCH,
    SHARES,
    SHORT,
    SIDE_PX,
    START,
    TEACHER,
    TUNED_SHARES,
    TUNED_WHOLLY,
    TUNING,
    TUNING_COST,
    VARIANTS,
    Budget,
)
from uniemox.reproduce.plan import OUT, Run, plan_evaluation, plan_run, with_needs
from uniemox.reproduce.preparing import describe_run, find_people_run, pack_run
from uniemox.reproduce.weight_files import digest_of_weights

SHORT_SIDE_PX, FUSION_PX = 160, 160
DRAWN_PX = 480  # short side of the images in which people are found with --quick
TEACHER_FILE = "teacher.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceOptions:
    """What the experiment is made with."""

    root: Path
    data: str
    """KIND:PATH, with a train split."""
    captions: str
    """KIND:PATH of images with texts that people wrote."""
    towers: str
    """The teacher's image towers, timm:NAME@FILE, several with commas."""
    objects: str
    """What names objects in the texts, NAME@FILE."""
    detector: str
    """What finds people; it must not have seen these images."""
    exclude: Path | None = None
    transfer: tuple[str, ...] = ()
    """Other data sets that probes are scored on."""
    peers: Mapping[str, Path] = field(default_factory=dict)
    """By name: folders with an encoder.safetensors that something else has trained."""
    budget: Budget = FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The runs by what they are for."""

    options: EvidenceOptions
    pretrained: Mapping[tuple[str, int], Run]
    """By row and seed."""
    probes: Mapping[tuple[str, int], Run]
    tuned: Mapping[tuple[str, int, float], Run]
    """By row, seed and share of the labels: its evaluation."""
    fusions: Run

    @property
    def runs(self) -> list[Run]:
        """Every run once, each after those that it needs."""
        return [run for stage in self.stages for run in stage]

    @property
    def stages(self) -> list[list[Run]]:
        """The runs in the order of their weight: the outcome, the other probes and fusions, what is fine-tuned.

        All at once with --quick, where no core shall wait.
        """
        outcome = [run for (row, _), run in self.probes.items() if row in (*PRIMARY, TEACHER, COLOURS)]
        tuned = sorted(self.tuned.items(), key=lambda item: item[0][2])  # by the share of the labels
        stages, found = list[list[Run]](), set[str]()
        groups = [outcome, [self.fusions, *self.probes.values()], [run for _, run in tuned]]
        for last in groups if self.options.budget.fraction == 1 else [[*groups[1], *groups[2]]]:
            wanted = {run.key: run for one in last for run in with_needs(one) if run.key not in found}
            stages.append(list(wanted.values()))
            found |= wanted.keys()
        return stages

    @property
    def rows(self) -> list[str]:
        """The encoders, in the order of the tables."""
        return list(dict.fromkeys(name for name, _ in self.probes))

    def seeds(self, row: str) -> list[int]:
        """Of pre-training that a row has."""
        return sorted(seed for name, seed in self.probes if name == row)


@dataclass(frozen=True, slots=True)
class _Encoder:
    """What probes and fine-tuning begin with."""

    init: str
    """As --init takes it."""
    needs: tuple[Run, ...] = ()
    digests: tuple[str, ...] = ()
    """Of what no run has made."""


def plan_evidence(options: EvidenceOptions) -> Evidence:
    """All runs."""
    budget = options.budget
    data, fitted = _prepare(options)
    teacher = _ask(options, fitted, f"shards:{data.folder}", data)
    pretrained = dict(_pretrain(options, data, teacher))
    encoders = {at: _Encoder(str(run.folder), (run,)) for at, run in pretrained.items()}
    for name, folder in options.peers.items():
        encoder = str(folder / ENCODER)
        encoders[name, 0] = _Encoder(encoder, digests=digest_of_weights(encoder))
    said = (teacher, *(_ask(options, fitted, source) for source in options.transfer))
    ceiling = _Encoder(STORED + ",".join(str(run.folder / TEACHER_FILE) for run in said), said)
    probed = {**encoders, (TEACHER, 0): ceiling, (COLOURS, 0): _Encoder(HISTOGRAM)}
    for seed in range(budget.tuning_seeds):
        start = pretrained[START, seed]
        encoders[SCRATCH, seed] = _Encoder(f"scratch:{start.folder}", (start,))
    return Evidence(
        options=options,
        pretrained=pretrained,
        probes={at: _probe(options, data, at, encoder) for at, encoder in probed.items()},
        tuned={
            (*at, share): _tune(options, data, at, share, epochs, encoder)
            for at, encoder in encoders.items()
            for share, epochs in zip(TUNED_SHARES, budget.tuning_epochs, strict=True)
            if at[1] < budget.tuning_seeds and (share < 1 or at[0] in TUNED_WHOLLY)
        },
        fusions=_fusions(options, data),
    )


def _prepare(options: EvidenceOptions) -> tuple[Run, Run]:
    """Shards with splits, people and texts; the teacher."""
    root, source, budget = options.root, options.data, options.budget
    excluded = () if options.exclude is None else ("--exclude", str(options.exclude))
    digest = tuple(_hash(path) for path in (options.exclude,) if path is not None)
    words = ["data", "split", source, f"{OUT}/{SPLITS}", "--hold-out", str(budget.hold_out), *excluded]
    words += ["--fraction", f"{budget.fraction:g}"] if budget.fraction < 1 else []
    splits = plan_run(root, "hold images out", words, makes=SPLITS, data=digest)
    packing, drawn = [*excluded, "--splits", str(splits.folder / SPLITS)], list[Run]()
    if budget.fraction < 1:  # people are looked for in these images alone
        drawn = [pack_run(root, "the images that are used", source, packing, digest, DRAWN_PX, [splits])]
        source, packing = f"shards:{drawn[0].folder}", []
    people = find_people_run(root, "the images", source, options.detector, (), drawn)
    texts = describe_run(root, "the images", source, options.objects, (), [people])
    packing += ["--persons", str(people.folder / PERSONS), "--texts", str(texts.folder / TEXTS)]
    data = pack_run(root, "the images", source, packing, digest, SHORT_SIDE_PX, [splits, *drawn, people, texts])
    shards = f"shards:{data.folder}"
    towers = digest_of_weights(options.towers)
    words = ["teacher", "fit", "--data", f"{shards},{options.captions}", "--out", OUT, "--resume", "--without-emotion"]
    words += ["--image-tower", options.towers, "--width", "128", "--epochs", str(budget.teacher_epochs)]
    fitted = plan_run(root, "fit the teacher", words, makes="teacher.json", needs=[data], data=towers)
    return data, fitted


def _ask(options: EvidenceOptions, fitted: Run, source: str, *needs: Run) -> Run:
    """What the teacher says of a data set."""
    words = ["teacher", "store", "--teacher", f"fitted:{fitted.folder}", "--data", source]
    words += ["--out", f"{OUT}/{TEACHER_FILE}", *([] if needs else ["--images-alone"])]
    return plan_run(options.root, "ask the teacher", words, makes=TEACHER_FILE, needs=[*needs, fitted])


def _pretrain(options: EvidenceOptions, data: Run, teacher: Run) -> Iterator[tuple[tuple[str, int], Run]]:
    """The starts, and what continues from them."""
    budget = options.budget
    shared = ["pretrain", "--preset", "demo", "--data", f"shards:{data.folder}", "--split", "train", "--out", OUT]
    shared += ["--resume", *NETWORK, *PRETRAINING, "--teacher.source", f"{STORED}{teacher.folder / TEACHER_FILE}"]
    for seed in range(max(budget.seeds, budget.primary_seeds)):
        words = [*shared, "--seed", str(seed), *_schedule(budget.start_epochs), *VARIANTS[PLAIN].changes]
        start = plan_run(options.root, f"start, seed {seed}", words, makes=ENCODER, needs=[data, teacher])
        yield (START, seed), start
        for name, variant in VARIANTS.items():
            if seed < (budget.primary_seeds if name in (*PRIMARY, SHORT) else budget.seeds):
                words = [*shared, "--seed", str(seed), "--encoder.start", str(start.folder)]
                words += [*_schedule(variant.epochs(budget.epochs)), *variant.changes]
                run = plan_run(options.root, f"{name}, seed {seed}", words, makes=ENCODER, needs=[data, teacher, start])
                yield (name, seed), run


def _schedule(epochs: float) -> tuple[str, ...]:
    """So many epochs, a tenth of them warm-up: what gets fewer epochs is warmed up as long a part of them."""
    return ("--schedule.epochs", f"{epochs:.3g}", "--schedule.warmup-epochs", f"{epochs / 10:.3g}")


def _probe(options: EvidenceOptions, data: Run, at: tuple[str, int], encoder: _Encoder) -> Run:
    words = ["reproduce", "probes", "--init", encoder.init, "--data", f"shards:{data.folder}"]
    words += ["--out", f"{OUT}/{ANSWERS}", "--size", str(SIDE_PX), "--shares", *(f"{share:g}" for share in SHARES)]
    words += ["--seeds", str(options.budget.label_seeds)]
    words += ["--transfer", *options.transfer] if options.transfer else []
    name = f"probe {at[0]}, seed {at[1]}"
    return plan_run(options.root, name, words, makes=ANSWERS, needs=[data, *encoder.needs], data=encoder.digests)


def _tune(
    options: EvidenceOptions, data: Run, at: tuple[str, int], share: float, epochs: int, encoder: _Encoder
) -> Run:
    """The evaluation of a fine-tuning run."""
    row, seed = at
    if row == SCRATCH:  # what pre-training took is given to the labels
        epochs += round((options.budget.start_epochs + options.budget.epochs) / TUNING_COST / share)
    shards = f"shards:{data.folder}"
    words = ["finetune", "--preset", "demo", "--data", shards, "--init", encoder.init, "--out", OUT, "--resume"]
    words += [*TUNING, "--schedule.epochs", str(epochs), "--seed", str(seed)]
    words += ["--fraction", f"{share:g}"] if share < 1 else []
    name = f"tune {row} with {share:.0%}, seed {seed}"
    run = plan_run(options.root, name, words, makes=ONNX, needs=[data, *encoder.needs], data=encoder.digests)
    return plan_evaluation(run, data=shards, split="test", needs=[data])


def _fusions(options: EvidenceOptions, data: Run) -> Run:
    words = ["reproduce", "fusions", "--init", options.towers, "--data", f"shards:{data.folder}"]
    words += ["--out", f"{OUT}/{ANSWERS}", "--size", str(FUSION_PX), "--seeds", str(options.budget.fusion_seeds)]
    digests = digest_of_weights(options.towers)
    return plan_run(options.root, "fusion alone", words, makes=ANSWERS, needs=[data], data=digests)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
