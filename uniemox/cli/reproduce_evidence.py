"""The experiment of docs/experiments.md: `uniemox reproduce evidence`, and the two commands that it is made of."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say
from uniemox.cli.data_options import NO_FILES, FileOptions
from uniemox.cli.reproduce_plan import with_progress
from uniemox.errors import ConfigError, UniemoxError

if TYPE_CHECKING:
    from uniemox.reproduce.evidence.plan import Evidence
    from uniemox.reproduce.plan import Run

Several = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)]
Switch = Annotated[bool, Parameter(negative="")]


def probes(
    *,
    init: str,
    data: str,
    out: Path,
    size: int = 112,
    shares: Annotated[tuple[float, ...], Parameter(negative="", consume_multiple=True)] = (0.01, 0.05, 0.1, 1.0),
    seeds: int = 3,
    transfer: Several = (),
    files: FileOptions = NO_FILES,
) -> None:
    """Fit logistic regressions and 20 neighbours on what a frozen encoder makes of shares of the labels.

    Of a plain ViT its CLS token and the mean of its patch tokens are read. All classes count the same. What is answered
    for the splits test and val is written to one file, for `uniemox reproduce evidence`.

    Example: uniemox reproduce probes --init runs/pre --data shards:fi --out answers.npz --transfer emotion6:emotion6

    Parameters
    ----------
    init
        As --init of finetune; histogram, for the colours of the image; stored:FILE, for a teacher's features.
    data
        KIND:PATH with the splits train and test.
    out
        File, .npz.
    size
        Side of the view, px.
    shares
        Of every class of train, 0 to 1.
    seeds
        Draws of each share below 1.
    transfer
        Data sets whose images are scored by five-fold cross-validation.
    """
    need("torch", "timm", "scipy", "sklearn", extra="train")
    import torch
    from threadpoolctl import threadpool_limits

    from uniemox.data.source import open_data
    from uniemox.reproduce.evidence.probes import probe_encoder
    from uniemox.training.hardware import keep_freed_memory

    found, others = files.open(data), {source: open_data(source) for source in transfer}
    keep_freed_memory()
    torch.set_num_threads(1)  # several of these run at a time; regressions this small are slower on more
    with progress_bar() as progress, threadpool_limits(limits=1):
        task = progress.add_task("looking at images", total=len(found))
        probe_encoder(
            init,
            found,
            out,
            size=size,
            shares=shares,
            seeds=seeds,
            others=others,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    print(f"wrote {out}")


def fusions(
    *,
    init: str,
    data: str,
    out: Path,
    size: int = 160,
    seeds: int = 10,
    files: FileOptions = NO_FILES,
) -> None:
    """Compare the scene alone with scene and person through Γ1 to Γ4, on frozen networks.

    Projection, fusion and head are trained for 1,000 steps with each seed, on all images and on those with people.
    Stopped at any moment, the same command resumes.

    Example: uniemox reproduce fusions --init timm:mobilenetv2_100 --data shards:fi --out answers.npz

    Parameters
    ----------
    init
        As --init of finetune.
    data
        KIND:PATH with the splits train and test, and with people.
    out
        File, .npz.
    size
        Side of the views, px.
    seeds
        How many.
    """
    need("torch", "timm", "scipy", "sklearn", extra="train")
    import torch

    from uniemox.reproduce.evidence.fusions import compare_fusions, fits_in_all
    from uniemox.training.hardware import keep_freed_memory

    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1, got {seeds}")
    found = files.open(data)
    keep_freed_memory()
    torch.set_num_threads(1)
    with progress_bar() as progress:
        looking = progress.add_task("looking at images", total=len(found))
        fitting = progress.add_task("fitting", total=fits_in_all(seeds))
        compare_fusions(
            init,
            found,
            out,
            size=size,
            seeds=seeds,
            on_progress=lambda done: progress.update(looking, completed=done),
            on_fit=lambda done: progress.update(fitting, completed=done),
        )
    print(f"wrote {out}")


@dataclass(frozen=True, kw_only=True)
class EvidenceFlags:
    """How the experiment is run."""

    transfer: Several = ()
    """Further data sets, KIND:PATH, that the encoders' probes are scored on."""
    peers: Several = ()
    """NAME=FOLDER: encoders that something else has trained, see tools/peers.py."""
    exclude: Path | None = None
    """File of `data check --json`; the images in its list "exclude" are left out."""
    out: Path = Path("runs/evidence")
    """Folder of all runs and of the page."""
    jobs: int = 2
    """Runs at a time."""
    quick: Switch = False
    """Every command on a tenth of the images: a check that all of it works, which proves nothing."""
    dry_run: Switch = False
    """Print the commands in their order, and do nothing."""
    as_json: JsonFlag = False
    """Print the page's figures as one JSON object."""


def evidence(
    *,
    data: str,
    captions: str,
    towers: str,
    objects: str,
    detector: str,
    flags: Annotated[EvidenceFlags, Parameter(name="*")] = EvidenceFlags(),
) -> None:
    """Does the method help? Pre-trainings of equal compute against plain distillation, as docs/experiments.md plans.

    Three hours and more on two cores. Stopped or killed at any moment, the same command resumes; --out/evidence.html is
    the page.

    Example: uniemox reproduce evidence --data fi:fi,fi:fi_more --exclude check.json
    --captions 'csv:flickr8k/captions.txt?root=images&missing=skip' --towers timm:mobilenetv2_100@a.safetensors
    --objects mobilenetv2_100@b.safetensors --detector yolox_nano.onnx --transfer emotion6:emotion6 abstract:abstract

    Parameters
    ----------
    data
        KIND:PATH with a split train, several with commas between them; 2,000 of its images are held out.
    captions
        KIND:PATH of images with captions that people wrote, on which the teacher's text tower is fitted.
    towers
        The teacher's image towers, timm:NAME@FILE, several with commas between them.
    objects
        Network of timm that names objects in the texts, NAME@FILE.
    detector
        Finds people, see --detector of `data persons`; one that was trained on other images.
    """
    need("torch", "timm", "open_clip", "tensorboard", "onnxscript", "scipy", "sklearn", extra="train")
    from uniemox.reproduce.evidence.plan import EvidenceOptions, plan_evidence
    from uniemox.reproduce.evidence.rows import FULL, QUICK

    planned = plan_evidence(
        EvidenceOptions(
            root=flags.out,
            data=data,
            captions=captions,
            towers=towers,
            objects=objects,
            detector=detector,
            exclude=flags.exclude,
            transfer=flags.transfer,
            peers=_peers(flags.peers),
            budget=QUICK if flags.quick else FULL,
        )
    )
    if flags.dry_run:
        for run in planned.runs:
            print(run.command)
        return
    _do(planned, flags)


def _do(planned: "Evidence", flags: EvidenceFlags) -> None:
    """Run what is left and write the page. Raises UniemoxError where runs fail."""
    from uniemox.reproduce.evidence.page import write_evidence

    due: list[Run] = []
    failed: dict[str, str] = {}
    for stage in planned.stages:  # what the outcome needs comes first
        due += stage
        failed = with_progress(due, flags.jobs, 0).failed
    names = {run.key: run.name for run in due}
    for key, why in failed.items():
        say(f"failed: {names[key]}: {why}")
    path = write_evidence(planned)
    say(f"wrote {path}, and .json beside it")
    if flags.as_json:
        print(path.with_suffix(".json").read_text("utf-8"), end="")
    if failed:
        raise UniemoxError(f"{len(failed)} of {len(due)} runs failed; the same command tries them again")


def _peers(texts: tuple[str, ...]) -> dict[str, Path]:
    """NAME=FOLDER, several. Raises ConfigError for another form, or a folder without an encoder."""
    found = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not name or not (Path(folder) / "encoder.safetensors").is_file():
            raise ConfigError(f"--peers takes NAME=FOLDER with an encoder.safetensors, got {text!r}")
        found[name] = Path(folder)
    return found
