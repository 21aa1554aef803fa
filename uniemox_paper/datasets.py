"""Tables I and II: search words and sizes of data sets."""

from collections import Counter
from collections.abc import Sequence

from uniemox.data import DataSet, open_data
from uniemox.errors import UniemoxError
from uniemox.io import UNKNOWN, Html, render
from uniemox.paper import paper_tables
from uniemox.plurals import counted
from uniemox_paper.config import Scale
from uniemox_paper.plan import Plan


def table1(sources: dict[str, str], scale: Scale) -> Plan:
    """Plan Emo8's search words."""

    def words() -> Html:
        rows = [(label, ", ".join(keywords)) for label, keywords in paper_tables()["table1_keywords"].items()]
        return _table("Search words (cited)", "search words", ("emotion", "words"), rows)

    def domains() -> Html:
        if not sources:
            return _no_data("--data emo8:PATH")
        return Html("".join(_words_of(name, data) for name, data in _open_all(sources)))

    about = (
        "Emo8 was collected with ten words for each of Mikels' eight emotions. If a reader has search words, as "
        "UBE's does, the table shows the number of images per word.",
    )
    return Plan(name="table1", title="Table I: Emo8's search words", scale=scale, about=about, parts=(words, domains))


def table2(sources: dict[str, str], scale: Scale) -> Plan:
    """Plan the data sets, their sizes and labels."""

    def sizes() -> Html:
        datasets = dict(_open_all(sources))
        rows = [
            (name, f"{count:,}", labels, kind, _counted(datasets.pop(name, None)))
            for name, count, labels, kind in paper_tables()["table2_datasets"]
        ]
        rows += [(name, UNKNOWN, UNKNOWN, UNKNOWN, _counted(data)) for name, data in datasets.items()]
        headings = ("data set", "images (cited)", "labels (cited)", "kind (cited)", "counted here (ours)")
        return render("uniemox_paper/part.html", name="data sets", headings=headings, rows=rows)

    def classes() -> Html:
        if not sources:
            return _no_data("--data KIND:PATH")
        return Html("".join(_classes_of(name, data) for name, data in _open_all(sources)))

    about = ("The paper's figures, and the counts of `uniemox data show` for the given data.",)
    return Plan(name="table2", title="Table II: data sets", scale=scale, about=about, parts=(sizes, classes))


def _open_all(sources: dict[str, str]) -> list[tuple[str, DataSet]]:
    """Open the data sets, by name.

    Raises:
        UniemoxError: If one can't be opened; the message begins with its name.
    """
    datasets = []
    for name, source in sources.items():
        try:
            datasets.append((name, open_data(source)))
        except UniemoxError as error:
            raise type(error)(f"{name}: {error}") from error
    return datasets


def _counted(data: DataSet | None) -> str:
    if data is None:
        return "not run"
    return f"{counted(len(data), 'image')}, {data.labels.name} ({len(data.labels)}), {data.labels.kind}"


def _classes_of(name: str, data: DataSet, notes: Sequence[str] = ()) -> Html:
    splits = sorted({sample.split or "all" for sample in data.samples})
    counts = Counter((sample.label, sample.split or "all") for sample in data.samples)
    rows = [(label, *(f"{counts[i, split]:,}" for split in splits)) for i, label in enumerate(data.labels.labels)]
    return _table(f"{name}: {data.name} (ours)", name, ("emotion", *splits), rows, notes)


def _words_of(name: str, data: DataSet) -> Html:
    counts = Counter((data.label_of(sample) or UNKNOWN, sample.domain) for sample in data.samples if sample.domain)
    if not counts:
        return _classes_of(name, data, ["It has no search words; its classes:"])
    rows = [(label, str(word), f"{count:,}") for (label, word), count in sorted(counts.items())]
    return _table(f"{name}: {data.name} (ours)", name, ("emotion", "word or folder", "images"), rows)


def _table(
    title: str, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> Html:
    return render("uniemox_paper/part.html", title=title, name=name, headings=headings, rows=rows, notes=notes)


def _no_data(option: str) -> Html:
    missing = f"No data set was given, so nothing is counted here; add {option}."
    return render("uniemox_paper/part.html", missing=missing)
