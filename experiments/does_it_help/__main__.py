"""Run the experiment, or compute its tables again from the stored outcomes.

python -m experiments.does_it_help --tables
    print every table of TABLES.md, in seconds, from outcomes/; --figure FILE.svg draws the positive control
python -m experiments.does_it_help --data fi:fi,fi:fi_more --captions 'csv:...' --towers 'timm:...,timm:...'
        --objects NAME@FILE --detector yolox_nano.onnx [--quick]
    train and probe everything; if stopped, repeat the command to resume. Runs whose outcome is stored in
    outcomes/ count as done, so that another machine can continue
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from experiments.does_it_help.choice import choose_recipes, choose_tunings, read_grid, tunings_to_choose_from
from experiments.does_it_help.figure import draw_doses
from experiments.does_it_help.outcomes import OUTCOMES
from experiments.does_it_help.plan import CONTRAST, DISTILLATION, FEW, FULL_BUDGET, QUICK, TUNED, Job, Recipe, Study
from experiments.does_it_help.running import run_jobs
from experiments.does_it_help.tables import print_tables
from uniemox.errors import UniemoxError
from uniemox.io.run_record import read_json_object

QUICK_IMAGES = 0.1
QUICK_FEW = 200


def main() -> None:
    """Parse the command line and run the missing jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="only compute the tables from the stored outcomes")
    parser.add_argument("--figure", type=Path, help="with --tables: SVG file for the figure of the positive control")
    parser.add_argument("--data", help="KIND:PATH with splits train and val; several with commas")
    parser.add_argument("--captions", help="KIND:PATH of images with captions, for the teacher's text tower")
    parser.add_argument("--towers", help="image towers of the teacher, timm:NAME@FILE, several with commas")
    parser.add_argument("--objects", help="timm network that names objects in the texts, NAME@FILE")
    parser.add_argument("--detector", help="ONNX person detector that was not trained on these images")
    parser.add_argument("--root", type=Path, default=Path("runs/does_it_help"), help="folder of all runs")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel commands; each computes on one core")
    parser.add_argument(
        "--quick", action="store_true", help="use a tenth of the images: takes minutes, gives no meaningful result"
    )
    args = parser.parse_args()
    if args.tables:
        print_tables(OUTCOMES)
        if args.figure:
            draw_doses(OUTCOMES, args.figure)
        return
    missing = [name for name in ("data", "captions", "towers", "objects", "detector") if not getattr(args, name)]
    if missing:
        parser.error(f"give --{' and --'.join(missing)}, or --tables")
    try:
        _run(args)
    except UniemoxError as error:
        parser.exit(1, f"{error}\n")


def _run(args: argparse.Namespace) -> None:
    root = args.root / ("quick" if args.quick else "")
    study = Study(
        root=root,
        outcomes=root / "outcomes" if args.quick else OUTCOMES,
        shards=f"shards:{root / 'shards'}",
        few=root / "few.json",
        teacher=root / "teacher.npz",
        budget=QUICK if args.quick else FULL_BUDGET,
    )
    for stage in _prepare(args, study):
        run_jobs(stage, root, args.jobs)
    run_jobs([*study.grid(CONTRAST), *study.baselines()], root, args.jobs)
    recipes = choose_recipes(read_grid(study.outcomes))
    *doses, long_train, long_probe = study.control(recipes[DISTILLATION])
    run_jobs([*study.main(recipes, CONTRAST), *doses], root, args.jobs)
    run_jobs(list(study.grid()), root, args.jobs)
    recipes = choose_recipes(read_grid(study.outcomes))
    run_jobs([*study.small(recipes), *study.main(recipes), long_train, long_probe], root, args.jobs)
    _fine_tune(study, recipes, args.jobs)
    print_tables(study.outcomes)


def _fine_tune(study: Study, recipes: Mapping[str, Recipe], jobs: int) -> None:
    """Fine-tune with seed 0, choose learning rates, and run the other seeds; train missing encoders first."""

    def run(tuned: list[Job]) -> None:
        encoders = {job.command[job.command.index("--init") + 1] for job in tuned if not job.is_stored}
        training_jobs = [job for job in study.main(recipes, CONTRAST) if job.name.startswith("train ")]
        needed = [job for job in training_jobs if job.command[job.command.index("--out") + 1] in encoders]
        run_jobs(needed, study.root, jobs)
        run_jobs(tuned, study.root, jobs)

    # The rows of the primary contrasts come first.
    for rows in (CONTRAST, TUNED):
        run([job for name, job in study.tuned(tunings_to_choose_from()) if name in rows])
        chosen = choose_tunings(study.outcomes, study.budget.seeds)
        for seed in range(study.budget.seeds):
            tunings = {row: [runs[seed] for runs in shares.values()] for row, shares in chosen.items() if row in rows}
            run([job for _, job in study.tuned(tunings)])


def _prepare(args: argparse.Namespace, study: Study) -> Iterator[list[Job]]:
    """Yield jobs for people, texts, shards, the teacher and its features."""
    root = study.root
    source = args.data
    exclude = ["--exclude", str(root / "check.json")]
    root.mkdir(parents=True, exist_ok=True)

    def job(name: str, *words: str) -> list[Job]:
        return [Job(name, ("uniemox", *words))]

    yield [Job("check", ("uniemox", "data", "check", source, "--json"), prints=root / "check.json")]
    if args.quick:
        options = ["--fraction", str(QUICK_IMAGES), *exclude]
        yield job("a tenth", "data", "split", source, str(root / "tenth.json"), "--hold-out", "1", *options)
        check = read_json_object(root / "check.json")
        test = read_json_object(root / "tenth.json")["splits"]["test"]
        check["exclude"] += [{"key": key, "path": key, "reason": "there is no test split"} for key in test]
        (root / "left_out.json").write_text(json.dumps(check))
        options = ["--splits", str(root / "tenth.json"), "--exclude", str(root / "left_out.json")]
        yield job("pack a tenth", "data", "shard", source, str(root / "tenth"), "--short-side", "480", *options)
        source = f"shards:{root / 'tenth'}"
        exclude = []
    people = str(root / "persons.json")
    texts = str(root / "texts.json")
    yield job("people", "data", "persons", source, "--detector", args.detector, "--out", people)
    network, _, file = args.objects.partition("@")
    options = ["--persons", people, "--classifier", network, "--classifier-weights", file]
    yield job("texts", "data", "describe", source, "--out", texts, *options)
    options = ["--short-side", "160", "--persons", people, "--texts", texts, *exclude]
    yield job("pack", "data", "shard", source, str(root / "shards"), *options)
    epochs = "2" if args.quick else "16"
    fit = ["--width", "128", "--epochs", epochs, "--without-emotion", "--resume"]
    fit += ["--image-tower", args.towers, "--data", f"{study.shards},{args.captions}"]
    yield job("teacher", "teacher", "fit", "--out", str(root / "teacher"), *fit)
    store = ["--data", study.shards, "--out", str(study.teacher)]
    yield job("features", "teacher", "store", "--teacher", f"fitted:{root / 'teacher'}", *store)
    count = str(QUICK_FEW if args.quick else FEW)
    yield job("few images", "data", "split", study.shards, str(study.few), "--hold-out", count)


if __name__ == "__main__":
    main()
