"""Data sets of a plan: their names, splits and preparation."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.sample import DataSet
from uniemox.data.source import open_data, parse_source
from uniemox.data.splits import PAPER_RECIPES
from uniemox.errors import UniemoxError
from uniemox.io.files import SPLITS
from uniemox.io.html import UNKNOWN, Html, render
from uniemox.paper import paper_tables
from uniemox.reproduce.check_networks import digest_of_weights
from uniemox.reproduce.names import Scale
from uniemox.reproduce.plan import OUT, Plan, Run, plan_run


def table1(given: dict[str, str], scale: Scale) -> Plan:
    """Emo8's search words."""

    def words() -> Html:
        rows = [(label, ", ".join(found)) for label, found in paper_tables()["table1_keywords"].items()]
        return _table("Search words (cited)", "search words", ("emotion", "words"), rows)

    def domains() -> Html:
        if not given:
            return _nothing("--data emo8:PATH")
        return Html("".join(_words_of(name, data) for name, data in _opened(given)))

    about = (
        "Emo8 was gathered with ten words for each of Mikels' eight emotions. A reader that keeps search words, as "
        "UBE's does, says how many images each one brought.",
    )
    return Plan(name="table1", title="Table I: Emo8's search words", scale=scale, about=about, parts=(words, domains))


def table2(given: dict[str, str], scale: Scale) -> Plan:
    """Data sets, their sizes and labels."""

    def sizes() -> Html:
        ours = dict(_opened(given))
        rows = [
            (name, f"{count:,}", labels, kind, _counted(ours.pop(name, None)))
            for name, count, labels, kind in paper_tables()["table2_datasets"]
        ]
        rows += [(name, UNKNOWN, UNKNOWN, UNKNOWN, _counted(data)) for name, data in ours.items()]
        headings = ("data set", "images (cited)", "labels (cited)", "kind (cited)", "counted here (ours)")
        return render("reproduce/part.html", name="data sets", headings=headings, rows=rows)

    def classes() -> Html:
        if not given:
            return _nothing("--data KIND:PATH")
        return Html("".join(_classes_of(name, data) for name, data in _opened(given)))

    about = ("The paper's figures, and what `uniemox data show` counts of the data that were given.",)
    return Plan(name="table2", title="Table II: data sets", scale=scale, about=about, parts=(sizes, classes))


def _opened(given: dict[str, str]) -> list[tuple[str, DataSet]]:
    """Those that can be opened."""
    found = []
    for name, source in given.items():
        try:
            found.append((name, open_data(source)))
        except UniemoxError as error:
            raise type(error)(f"{name}: {error}") from error
    return found


def _counted(data: DataSet | None) -> str:
    if data is None:
        return "not run"
    return f"{len(data):,} images, {data.labels.name} ({len(data.labels)}), {data.labels.kind}"


def _classes_of(name: str, data: DataSet, notes: Sequence[str] = ()) -> Html:
    splits = sorted({sample.split or "all" for sample in data.samples})
    counts = Counter((sample.label, sample.split or "all") for sample in data.samples)
    rows = [
        (label, *(f"{counts[place, split]:,}" for split in splits)) for place, label in enumerate(data.labels.labels)
    ]
    return _table(f"{name}: {data.name} (ours)", name, ("emotion", *splits), rows, notes)


def _words_of(name: str, data: DataSet) -> Html:
    counts = Counter((data.label_of(sample) or UNKNOWN, sample.domain) for sample in data.samples if sample.domain)
    if not counts:
        return _classes_of(name, data, ["It keeps no search words; its classes:"])
    rows = [(label, str(word), f"{count:,}") for (label, word), count in sorted(counts.items())]
    return _table(f"{name}: {data.name} (ours)", name, ("emotion", "word or folder", "images"), rows)


def _table(
    title: str, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> Html:
    return render("reproduce/part.html", title=title, name=name, headings=headings, rows=rows, notes=notes)


def _nothing(option: str) -> Html:
    missing = f"No data set was given, so that nothing is counted here; add {option}."
    return render("reproduce/part.html", missing=missing)


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
