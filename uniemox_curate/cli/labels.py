"""Commands that turn images into labels, and labels into a data set."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from uniemox.cli import JsonObject, need, options_of, progress_bar, say, shell_quoted, show_all
from uniemox.errors import ConfigError
from uniemox.plurals import counted
from uniemox_curate.cli.tables import Folder, agreement_tables, opened, say_next
from uniemox_curate.plan import Rule
from uniemox_curate.release.config import ReleaseConfig

RuleOption = Annotated[
    Rule | None,
    Parameter(
        help="Rule for keeping images: both (all annotators give the label of the search word, as in the paper), "
        "majority, or soft (most frequent label, with shares). Default: that of the last split or release, or both."
    ),
]
Name = Annotated[str, Parameter(help="Name of the annotator.")]
Address = Annotated[
    str | None, Parameter(help="Address of the pages. Default: that of the project's last `uniemox curate serve`.")
]
RELEASE = options_of(ReleaseConfig(name="-"), without=("name", "rule", "min_answers"))


def invite(folder: Folder, name: Name, /, *, address: Address = None) -> None:
    """Print an invitation link for an annotator. It is shown once; a new link for the same name replaces it.

    Example: uniemox curate invite mine Ada
    """
    project = opened(folder)
    from uniemox_curate.annotate import access, serving

    base = (address or serving.served_at(project)).rstrip("/")
    if access.is_invited(project, name):
        say(f"{name} was invited before: the old link and its sessions end, the answers stay")
    print(f"{base}/join#{access.invite(project, name)}")


def leave_out(folder: Folder, name: Name, /) -> None:
    """Stop counting an annotator's answers, for example after failed attention checks; `undo` reverses it.

    Example: uniemox curate leave-out mine Ada
    """
    project = opened(folder)
    from uniemox_curate.decisions import leave_out as run

    with project.store.write() as connection:
        number = run(connection, name, actor="owner")
    print(f"answers of {name} are left out; to count them again: uniemox curate undo {shell_quoted(folder)} {number}")
    say_next(project, folder)


def suggest(folder: Folder, /, *, model: str = "embedded", off: bool = False) -> None:
    """Show annotators a model's prediction for each image, or stop showing it (--off).

    Suggestions bias answers towards the model. Each answer records its suggestion; the release counts them.

    For example:

    - uniemox curate suggest mine --model runs/fi
    - uniemox curate suggest mine --off

    Args:
        model: Model as for `uniemox predict`, with the labels of the project.
        off: Stop showing suggestions.
    """
    project = opened(folder)
    from uniemox_curate.annotate import assignment

    if off:
        assignment.forget(project)
        print("suggestions are off")
        return
    with progress_bar() as progress:
        count = assignment.suggest(project, model, progress.show)
    print(f"annotators see the predictions of {model} for {counted(count, 'image')}; --off ends it")


def serve(folder: Folder, /, *, host: str = "127.0.0.1", port: int = 8790, address: str | None = None) -> None:
    """Serve the web pages: annotators answer; the owner screens images, decides disputes and follows the progress.

    Prints a link for the owner. By default the pages open only on this machine. Only invited people see images.

    For example:

    - uniemox curate serve mine
    - uniemox curate serve mine --address https://curate.example.org

    Args:
        host: Address to listen on; 0.0.0.0 accepts other machines and needs --address.
        port: TCP port to listen on; 0 takes a free one.
        address: Address at which people open the pages, such as https://example.org, without a path.
    """
    project = opened(folder)
    from uniemox_curate.annotate import access, serving
    from uniemox_serve import listen

    sock = listen(host, port)
    base = serving.base_address(sock, address)
    serving.record_address(project, base)
    print(f"owner: {base}/join#{access.invite(project, access.OWNER, 'owner')}", flush=True)
    say(f"serving {base}; Ctrl-C ends it, and nothing is lost")
    serving.serve(project, sock, address)


def agree(folder: Folder, /, *, rule: RuleOption = None, as_json: JsonObject = False) -> None:
    """Report the agreement of annotators: percentage, Cohen's kappa, Krippendorff's alpha, with 95 % intervals.

    Example: uniemox curate agree mine --rule majority --json
    """
    project = opened(folder)
    from uniemox_curate.annotate.agree import agree as run
    from uniemox_curate.annotate.verdicts import remembered_rule, verdicts
    from uniemox_curate.counters import count
    from uniemox_curate.saved_results import saved_split
    from uniemox_curate.status import annotators, note_on_checks

    active_rule = remembered_rule(project.store)
    rule = rule or active_rule
    stats = run(project)
    decided = verdicts(project, rule=rule)
    if as_json:
        reasons = Counter(sorted(verdict.reason for verdict in decided.values()))
        labels = Counter(sorted(verdict.label for verdict in decided.values() if verdict.label is not None))
        print(json.dumps({**stats.as_dict(), "rule": rule, "kept": labels, "reasons": reasons}))
        return
    show_all(agreement_tables(stats, decided))
    if note := note_on_checks(annotators(project, count(project.store)), project.plan.check_every):
        say(note)
    say(f"kept by the rule {rule}")
    if rule != active_rule:
        drawn = saved_split(project.store)
        options = [] if drawn is None else drawn.options
        words = " ".join(["split", shell_quoted(folder), *options, "--rule", rule])
        say(
            f"status, /judge and the next step count by the rule {active_rule}; to use {rule} from now on: uniemox "
            f"curate {words}"
        )
    say_next(project, folder)


def split(
    folder: Folder,
    /,
    *,
    ratio: str = "80/10/10",
    schemes: int = 100,
    seed: int = 0,
    rule: RuleOption = None,
    as_json: JsonObject = False,
) -> None:
    """Split the kept images into train, val and test. Of many schemes, keeps the one with the most similar colours.

    Near duplicates, and images of one author or page of the web, stay together. Writes splits.json to the project, and
    with several schemes splits.png, which compares their colours (figure 6).

    For example:

    - uniemox curate split mine
    - uniemox curate split mine --ratio 70/10/20 --schemes 1 --seed 3

    Args:
        ratio: Shares of train, val and test.
        schemes: Number of schemes to draw; 1 takes the first one without comparing colours, and removes an earlier
            splits.png.
        seed: Random seed of the first scheme.
    """
    project = opened(folder)
    from uniemox.data import parse_ratio
    from uniemox_curate.annotate.verdicts import remembered_rule, verdicts
    from uniemox_curate.release.splitting import split as run

    rule = rule or remembered_rule(project.store)
    drawn = run(project, verdicts(project, rule=rule), parse_ratio(ratio), seed=seed, schemes=schemes, rule=rule)
    project.store.set("rule", rule)
    for label, names in drawn["lacking"].items():
        say(f"{label} has no image in {' and '.join(names)}: collect more images of it, or begin a project without it")
    if drawn["note"]:
        say(drawn["note"])
    if schemes == 1:
        say("no splits.png: it compares the colours of several schemes (--schemes 100), and one was drawn")
    if as_json:
        print(json.dumps(drawn))
        return
    print(f"{', '.join(f'{name} {size}' for name, size in sorted(drawn['sizes'].items()))} ({drawn['how']})")
    say_next(project, folder)


def release(
    folder: Folder,
    out: Path,
    /,
    *,
    name: str,
    rule: RuleOption = None,
    as_json: JsonObject = False,
    about: Annotated[Any, Parameter(name="*")] = RELEASE(),  # noqa: B008
) -> None:
    """Write the data set: class folders, datasheet, Croissant, licences, statistics, checksums, Label Studio tasks.

    For example:

    - uniemox curate release mine mine-1.0 --name "My Emo8" --licence CC-BY-4.0
    - uniemox data show folder:mine-1.0/pictures

    Args:
        out: Folder to write to: an empty one, or one with a release.
        name: Name of the data set.
    """
    need("mlcroissant", extra="curate")
    project = opened(folder)
    from uniemox_curate.annotate.verdicts import remembered_rule
    from uniemox_curate.release.documents import release_sources
    from uniemox_curate.release.run import release as run
    from uniemox_curate.release.writing import NEW_README

    config = ReleaseConfig(name=name, rule=rule or remembered_rule(project.store), **vars(about))
    with progress_bar() as progress:
        result = run(project, out, config, progress.show)
    for text, value in result["kept texts"].items():
        say(f"{text} of the previous release kept: {value}")
    if result["without split"]:
        images = counted(result["without split"], "kept image without a split was", "kept images without a split were")
        say(f"{images} left out; run uniemox curate split again")
    if result["unlicensed"]:
        images = counted(result["unlicensed"], "image of unknown licence was", "images of unknown licence were")
        say(f"{images} left out")
    if as_json:
        print(json.dumps(result))
        return
    encoded_again = result["statistics"]["metadata"]["encoded again"]
    if encoded_again:
        images = counted(encoded_again, "image was converted and does", "images were converted and do")
        say(f"{images} not have all pixels of the original file; README.md says how")
        say("--metadata keep copies all files unchanged")
    if (out / NEW_README).exists():
        say(f"README.md was edited, so it stays; {NEW_README} has the new text")
    print(f"wrote {out}: {counted(result['pictures'], 'image')}")
    source, *_ = release_sources(project.plan, result["statistics"], f"{out}/")
    say(f"look at it: uniemox data show {shell_quoted(Path(source))}")
    say_next(project, folder)


def export_answers(
    folder: Folder, out: Annotated[Path, Parameter(help="File to write: .csv, or .json for Label Studio.")], /
) -> None:
    """Export all answers as a table or for Label Studio. You can do this while annotators are at work.

    The file contains annotators' names and comments; a release contains neither. An existing file is replaced.

    Example: uniemox curate export mine answers.csv
    """
    project = opened(folder)
    from uniemox_curate.annotate.answer_files import write_csv, write_label_studio

    write = {".csv": write_csv, ".json": write_label_studio}.get(out.suffix)
    if write is None or out.resolve() == (folder / "splits.json").resolve():
        raise ConfigError(f"{out}: give answers.csv, or tasks.json for Label Studio")
    print(f"wrote {out}: {counted(write(project, out), 'answer')}")
    if out.suffix == ".json":
        say("each image that annotators are asked about is a task, also without an answer")


def import_answers(
    folder: Folder,
    tasks: Annotated[Path, Parameter(help="JSON export of Label Studio.")],
    /,
    *,
    control: str | None = None,
) -> None:
    """Import answers from Label Studio for images of the project.

    Images are identified by data.sha256; without it, by the file name in data.image. Of several answers of a person to
    an image, the newest one is imported.

    Example: uniemox curate import mine export.json

    Args:
        control: Name of the control (from_name) whose choices are the answers. Default: emotion, or the only one.
    """
    project = opened(folder)
    from uniemox_curate.annotate.answer_import import import_label_studio
    from uniemox_curate.annotate.label_studio import PREFIX

    imported = import_label_studio(project, tasks, control)
    if imported.unknown:
        tasks_refer = counted(imported.unknown, "task refers to an image", "tasks refer to images")
        say(
            f"{tasks_refer} not in the project, or whose file name several of its images have; put the sha256 of the "
            "image into data.sha256, as uniemox curate export does"
        )
    if imported.unfit:
        annotations = counted(imported.unfit, "annotation was", "annotations were")
        say(f"{annotations} refused: no label of the project, or invalid values")
    if imported.unanswered:
        annotations = counted(imported.unanswered, "annotation has", "annotations have")
        say(f"{annotations} no choice of the control, such as comments alone: not answered")
    if imported.nameless:
        annotations = counted(imported.nameless, "annotation does", "annotations do")
        say(
            f"{annotations} not say who gave them (completed_by) and were left out; if these are the tasks of a "
            "release, which name no annotators, give those of uniemox curate export"
        )
    if imported.older:
        annotations = counted(imported.older, "annotation was", "annotations were")
        say(f"{annotations} left out: the same person has a newer answer to the image")
    for name, count in imported.repeated.items():
        say(f"images to which {name} has several answers: {count}; the newest answer counts")
        say("if several people used this account of Label Studio, their answers can't be distinguished")
    for name, count in imported.changed.items():
        say(f"answers of {name} that were changed in Label Studio: {count}; the old ones count too")
        say(f"the new ones are answers of {PREFIX} {name}; where they differ, choose the label on the page /judge")
    print(f"imported {counted(imported.new, 'answer')}; {imported.answers - imported.new} already existed")
    if imported.is_empty:
        say(
            "no task has an annotation, and predictions and drafts are no answers: submit the annotations in Label "
            "Studio, and export again"
        )
    elif imported.answers:
        say("uniemox curate status lists who gave them; uniemox curate leave-out stops counting a person's answers")
        say_next(project, folder)
