"""Runs that make data ready: their splits, the people in them, their texts, shards."""

from collections.abc import Sequence
from pathlib import Path

from uniemox.data.sample import DataSet
from uniemox.data.sidecar import PERSONS, TEXTS
from uniemox.data.source import parse_source
from uniemox.data.splits import PAPER_RECIPES
from uniemox.io.files import SPLITS
from uniemox.reproduce.plan import OUT, Run, plan_run
from uniemox.reproduce.weight_files import digest_of_weights

TRAINED_BY_DEFAULT = 0.8  # where splits are drawn
EMBEDDED = "embedded"  # the detector that comes with the package


def splits_run(
    root: Path,
    name: str,
    source: str,
    data: DataSet,
    digest: tuple[str, ...],
    options: Sequence[str],
    how: tuple[str, ...],
) -> tuple[Run | None, int, str, int]:
    """The run that divides the data, None if they are divided; images to train on; split to score, its images."""
    sizes = {split: sum(sample.split == split for sample in data.samples) for split in ("train", "val", "test")}
    is_paper = how == ("--paper",)
    if sizes["train"] and (sizes["test"] or sizes["val"]) and not is_paper:
        split = "test" if sizes["test"] else "val"
        return None, sizes["train"], split, sizes[split]
    words = ["data", "split", source, f"{OUT}/splits.json", *how, *options]
    run = plan_run(root, f"split {name}", words, makes=SPLITS, data=digest)
    recipe = PAPER_RECIPES.get(parse_source(source)[0]) if is_paper else None
    if is_paper and (recipe is None or recipe.of_split is not None):  # train stays as it was published
        return run, sizes["train"], "test", sizes["test"]
    shares = {"train": TRAINED_BY_DEFAULT, "test": (1 - TRAINED_BY_DEFAULT) / 2} if recipe is None else recipe.ratios
    return run, round(len(data) * shares["train"]), "test", round(len(data) * shares["test"])


def pack_run(
    root: Path,
    name: str,
    source: str,
    options: Sequence[str],
    digest: tuple[str, ...],
    short_side_px: int,
    needs: Sequence[Run],
) -> Run:
    """Shards of the data, images scaled to a short side."""
    words = ["data", "shard", source, OUT, "--short-side", str(short_side_px), *options]
    return plan_run(root, f"pack {name}", words, makes="shards.json", needs=needs, data=digest)


def find_people_run(
    root: Path, name: str, source: str, detector: str, digest: tuple[str, ...], needs: Sequence[Run] = ()
) -> Run:
    """A file of the people in all images."""
    words = ["data", "persons", source, "--detector", detector, "--out", f"{OUT}/{PERSONS}"]
    data = (*digest, *(digest_of_weights(detector) if detector != EMBEDDED else ()))
    return plan_run(root, f"find the people in {name}", words, makes=None, needs=needs, data=data)


def describe_run(
    root: Path, name: str, source: str, objects: str | None, digest: tuple[str, ...], found: Sequence[Run]
) -> Run:
    """A file of texts.  found: the run that finds the people, if there is one."""
    words = ["data", "describe", source, "--out", f"{OUT}/{TEXTS}"]
    words += ["--persons", str(found[0].folder / PERSONS)] if found else []
    network, _, file = (objects or "").partition("@")
    words += ["--classifier", network] if network else []
    words += ["--classifier-weights", file] if file else []
    data = (*digest, *(digest_of_weights(file) if file else ()))
    title = f"describe {name}" if network else f"describe {name}, without objects (--objects names them)"
    return plan_run(root, title, words, makes=None, needs=found, data=data)
