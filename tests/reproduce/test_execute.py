"""Executing a plan: in order, once, with failures and kills. The commands are real and small."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.processes import children_of, wait_until
from tests.reproduce.plans import make_run
from uniemox.errors import ConfigError, DataError
from uniemox_paper.execute import JOURNAL, execute, seconds_of, to_do
from uniemox_paper.plan import PlannedRun


def split(
    root: Path, name: str, seed: int, needs: Sequence[PlannedRun] = (), source: str = "synthetic:64"
) -> PlannedRun:
    fields = {"options": {"seed": seed}, "makes": "splits.json", "needs": tuple(needs)}
    return make_run(root, name, "data split", source, "{out}/splits.json", **fields)


def journal(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / JOURNAL).read_text().splitlines()]


def test_empty_plan_is_done(tmp_path: Path) -> None:
    outcome = execute([])
    assert (outcome.done, outcome.failed) == ([], {})


def test_failed_run_keeps_the_checkpoint_in_its_folder(tmp_path: Path) -> None:
    options = {"data": "synthetic:none", "out": "{out}", "resume": True, "epochs": "none"}
    run = make_run(tmp_path, "teacher", "teacher fit", options=options, makes="teacher.json")
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint").write_text("of many steps")
    assert set(execute([run]).failed) == {run.key}
    assert (run.folder / "checkpoint").is_file()


def test_runs_execute_once_in_order_and_continue_after_a_failure(tmp_path: Path) -> None:
    first = split(tmp_path, "first", 0)
    broken = split(tmp_path, "broken", 1, [first], source="synthetic:none")
    runs = [first, broken, split(tmp_path, "second", 2, [first]), split(tmp_path, "lost", 3, [broken])]
    shares = list[float]()
    descriptions = list[str]()

    def watch(share: float, words: str) -> None:
        shares.append(share)
        descriptions.append(words)

    outcome = execute(runs, jobs=2, watch=watch)
    assert [run.name for run in outcome.done] == ["first", "second"]
    assert descriptions[-1] == "no run is left"
    assert set(outcome.failed) == {runs[1].key, runs[3].key}
    assert "exit code 1" in outcome.failed[runs[1].key]
    assert "expected a whole number" in outcome.failed[runs[1].key]
    assert outcome.failed[runs[3].key] == "it needs a failed run: broken"
    assert shares == sorted(shares)
    assert shares[-1] == 0.5
    names = [line["name"] for line in journal(tmp_path)]
    assert names[0] == "first"
    assert sorted(names) == ["broken", "first", "second"]
    assert set(seconds_of(tmp_path)) == {run.key for run in runs[:3]}
    repeated = execute([runs[0], runs[2]])
    assert [run.name for run in repeated.done] == ["first", "second"]
    assert len(journal(tmp_path)) == 3


@pytest.mark.thorough
def test_run_with_the_longest_chain_starts_first(tmp_path: Path) -> None:
    alone = split(tmp_path, "alone", 0)
    first = split(tmp_path, "first", 1)
    second = split(tmp_path, "second", 2, [first])
    execute([alone, first, second])
    assert journal(tmp_path)[0]["name"] == "first"


def test_run_with_a_growing_file_is_done_by_its_mark(tmp_path: Path) -> None:
    options = {"detector": "embedded", "out": "{out}/persons.jsonl"}
    run = make_run(tmp_path, "find people", "data persons", "synthetic:8", options=options)
    assert to_do([run]) == [run]
    outcome = execute([run])
    assert outcome.failed == {}
    assert len((run.folder / "persons.jsonl").read_text().splitlines()) == 9
    assert to_do([run]) == []
    assert run.mark.read_text() == f"{run.command}\n"


def test_deleted_intermediate_results_are_not_made_again(tmp_path: Path) -> None:
    first = split(tmp_path, "first", 0)
    second = split(tmp_path, "second", 1, [first])
    second.folder.mkdir(parents=True)
    (second.folder / "splits.json").write_text("{}")
    assert to_do([first, second]) == []
    (second.folder / "splits.json").unlink()
    assert to_do([first, second]) == [first, second]


def test_runs_that_lack_something_do_not_start(tmp_path: Path) -> None:
    lacking = replace(split(tmp_path, "x", 1), lacks="the data")
    needing = split(tmp_path, "needing", 0, [lacking])
    outcome = execute([lacking, needing])
    assert (outcome.done, outcome.failed) == ([], {})
    assert not (tmp_path / JOURNAL).exists()


def planned(root: Path) -> list[PlannedRun]:
    fields = {"options": {"workers": 1}, "makes": "shards.json"}
    pack = make_run(root, "pack", "data shard", "synthetic:96", "{out}", **fields)
    return [pack, split(root, "split", 0, [pack], f"shards:{pack.folder}")]


def execute_planned(root: Path) -> None:
    """Execute the plan in a process of its own, whose messages go to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (root / "messages").open("wb") as file:
        os.dup2(file.fileno(), 2)
    execute(planned(root))


@pytest.mark.thorough
@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_killed_plan_resumes_without_a_second_start(tmp_path: Path, signal_number: int) -> None:
    """After SIGKILL its command continues and is waited for; after SIGINT it ends its commands."""
    runs = planned(tmp_path)
    log = runs[0].log
    starter = multiprocessing.get_context("forkserver").Process(target=execute_planned, args=(tmp_path,))
    starter.start()
    # The command is named in its log before it starts.
    wait_until(lambda: log.exists() and children_of(starter.pid), seconds=240)
    os.kill(starter.pid, signal_number)
    starter.join(240)
    assert not (runs[0].folder / "shards.json").exists()
    outcome = execute(runs)
    assert [run.name for run in outcome.done] == ["pack", "split"]
    starts = log.read_text().count("$ uniemox data shard")
    if signal_number == signal.SIGKILL:
        assert starts == 1
    else:
        assert "repeat the command to resume" in (tmp_path / "messages").read_text()
        assert starts == 2
        assert [line["exit_code"] == 0 for line in journal(tmp_path) if line["name"] == "pack"] == [False, True]
    assert [line["name"] for line in journal(tmp_path)][-1] == "split"


def test_each_run_gets_its_own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs get two and one of four GPUs; a run on four waits until all are free, and later runs wait behind it."""
    record = tmp_path / "seen"
    popen = subprocess.Popen
    program = (
        "import os, sys, time; f = open(sys.argv[1], 'a'); v = os.environ.get('CUDA_VISIBLE_DEVICES');"
        "f.write(f'{sys.argv[2]} start {v}\\n'); f.flush(); time.sleep(0.7); f.write(f'{sys.argv[2]} end {v}\\n')"
    )

    def start_program(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        name = words[words.index("--seed") + 1]
        return popen([sys.executable, "-c", program, str(record), name], **options)

    monkeypatch.setattr(subprocess, "Popen", start_program)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    runs = []
    for name, processes, images in (("two", 2, 900), ("one", 1, 800), ("all", 4, 700), ("last", 1, 600)):
        options = {"out": "{out}", "seed": name}
        runs.append(make_run(tmp_path, name, "finetune", options=options, processes=processes, images=images))
    execute(runs, jobs=4, gpus=4)
    lines = [line.split(maxsplit=2) for line in record.read_text().splitlines()]
    devices = {name: gpus.split(",") for name, event, gpus in lines if event == "start"}
    assert {name: len(gpus) for name, gpus in devices.items()} == {"two": 2, "one": 1, "all": 4, "last": 1}
    assert set(devices["all"]) == {"4", "5", "6", "7"}
    running: dict[str, set[str]] = {}
    for name, event, gpus in lines:
        if event == "end":
            del running[name]
            continue
        assert not set(gpus.split(",")) & set().union(*running.values())
        running[name] = set(gpus.split(","))
    order = [name for name, event, _ in lines if event == "start"]
    assert order.index("all") < order.index("last")
    with pytest.raises(ConfigError, match="a run of this plan has 4 processes, but there are 3 GPUs"):
        execute(runs, jobs=4, gpus=3)


@pytest.mark.thorough
def test_data_preparation_gets_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environments: list[dict[str, str]] = []
    popen = subprocess.Popen

    def start_and_record(words: Sequence[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        environments.append(env)
        return popen(words, env=env, **options)

    monkeypatch.setattr(subprocess, "Popen", start_and_record)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    execute([split(tmp_path, "first", 0)], gpus=2)
    execute([split(tmp_path, "second", 1)])
    assert [env.get("CUDA_VISIBLE_DEVICES") for env in environments] == ["", None]


@pytest.mark.parametrize(
    "name", ["locks/{key}.lock", "logs/{key}.log", JOURNAL, "done", "locks", "runs", "runs/data-split-{key}"]
)
def test_links_and_pipes_in_the_output_folder_are_refused(tmp_path: Path, name: str) -> None:
    private = tmp_path / "private"
    run = split(tmp_path / "out", "a", 0)
    private.write_text("mine") if "." in name else private.mkdir()
    link = tmp_path / "out" / name.format(key=run.key)
    link.parent.mkdir(parents=True)
    link.symlink_to(private)
    with pytest.raises(DataError, match="is a link"):
        execute([run])
    assert list(private.iterdir()) == [] if private.is_dir() else private.read_text() == "mine"
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(DataError, match="is a pipe"):
        execute([run])


def test_journal_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """It is refused even if all runs are done, so that nothing is written to it."""
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(DataError, match="is a pipe"):
        seconds_of(tmp_path)
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a link"):
        seconds_of(tmp_path)
