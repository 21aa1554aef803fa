"""Doing a plan: in order, once, on after a failure and after a kill. The commands are real ones, small."""

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
from tests.reproduce.made import make_run
from uniemox.errors import ConfigError, DataError
from uniemox.reproduce.execute import JOURNAL, execute, seconds_of, to_do
from uniemox.reproduce.plan import Run


def split(root: Path, name: str, seed: int, needs: Sequence[Run] = (), source: str = "synthetic:64") -> Run:
    known = {"options": {"seed": seed}, "makes": "splits.json", "needs": tuple(needs)}
    return make_run(root, name, "data split", source, "{out}/splits.json", **known)


def journal(root: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (root / JOURNAL).read_text().splitlines()]


def test_an_empty_plan_is_done(tmp_path: Path) -> None:
    outcome = execute([])
    assert (outcome.done, outcome.failed) == ([], {})


def test_what_a_killed_fit_of_a_teacher_left_is_there_for_the_next(tmp_path: Path) -> None:
    options = {"data": "synthetic:none", "out": "{out}", "resume": True, "epochs": "none"}
    run = make_run(tmp_path, "teacher", "teacher fit", options=options, makes="teacher.json")
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint").write_text("of many steps")
    assert set(execute([run]).failed) == {run.key}
    assert (run.folder / "checkpoint").is_file()


def test_runs_are_done_in_order_and_once_and_go_on_after_a_failure(tmp_path: Path) -> None:
    first = split(tmp_path, "first", 0)
    broken = split(tmp_path, "broken", 1, [first], source="synthetic:none")
    runs = [first, broken, split(tmp_path, "second", 2, [first]), split(tmp_path, "lost", 3, [broken])]
    told = list[float]()
    doing = list[str]()

    def watch(share: float, words: str) -> None:
        told.append(share)
        doing.append(words)

    outcome = execute(runs, jobs=2, watch=watch)
    assert [run.name for run in outcome.done] == ["first", "second"]
    assert doing[-1] == "no run is left"
    assert set(outcome.failed) == {runs[1].key, runs[3].key}
    assert "exit code 1" in outcome.failed[runs[1].key]
    assert "expected a whole number" in outcome.failed[runs[1].key]
    assert outcome.failed[runs[3].key] == "it needs a failed run: broken"
    assert told == sorted(told)
    assert told[-1] == 0.5
    names = [line["name"] for line in journal(tmp_path)]
    assert names[0] == "first"
    assert sorted(names) == ["broken", "first", "second"]
    assert set(seconds_of(tmp_path)) == {run.key for run in runs[:3]}
    again = execute([runs[0], runs[2]])
    assert [run.name for run in again.done] == ["first", "second"]
    assert len(journal(tmp_path)) == 3


def test_what_much_work_waits_for_goes_first(tmp_path: Path) -> None:
    alone = split(tmp_path, "alone", 0)
    first = split(tmp_path, "first", 1)
    second = split(tmp_path, "second", 2, [first])
    execute([alone, first, second])
    assert journal(tmp_path)[0]["name"] == "first"


def test_a_run_whose_file_grows_is_marked_when_it_is_done(tmp_path: Path) -> None:
    run = make_run(tmp_path, "describe", "data describe", "synthetic:8", options={"out": "{out}/texts.jsonl"})
    assert to_do([run]) == [run]
    outcome = execute([run])
    assert outcome.failed == {}
    assert len((run.folder / "texts.jsonl").read_text().splitlines()) == 9
    assert to_do([run]) == []
    assert run.mark.read_text() == f"{run.command}\n"


def test_what_was_made_on_the_way_is_not_made_again(tmp_path: Path) -> None:
    first = split(tmp_path, "first", 0)
    second = split(tmp_path, "second", 1, [first])
    second.folder.mkdir(parents=True)
    (second.folder / "splits.json").write_text("{}")
    assert to_do([first, second]) == []
    (second.folder / "splits.json").unlink()
    assert to_do([first, second]) == [first, second]


def test_what_is_missing_is_not_started(tmp_path: Path) -> None:
    lacking = replace(split(tmp_path, "x", 1), lacks="the data")
    needing = split(tmp_path, "needing", 0, [lacking])
    outcome = execute([lacking, needing])
    assert (outcome.done, outcome.failed) == ([], {})
    assert not (tmp_path / JOURNAL).exists()


def planned(root: Path) -> list[Run]:
    known = {"options": {"workers": 1}, "makes": "shards.json"}
    pack = make_run(root, "pack", "data shard", "synthetic:96", "{out}", **known)
    return [pack, split(root, "split", 0, [pack], f"shards:{pack.folder}")]


def execute_planned(root: Path) -> None:
    """In a process of its own, whose words go to a file."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with (root / "said").open("wb") as file:
        os.dup2(file.fileno(), 2)
    execute(planned(root))


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_the_same_plan_goes_on_and_starts_nothing_twice(tmp_path: Path, number: int) -> None:
    """Killed hard, its command lives on and is waited for; asked to stop, it ends its commands."""
    runs = planned(tmp_path)
    log = runs[0].log
    starter = multiprocessing.get_context("forkserver").Process(target=execute_planned, args=(tmp_path,))
    starter.start()
    # The command is named in its log before it starts.
    wait_until(lambda: log.exists() and children_of(starter.pid), seconds=240)
    os.kill(starter.pid, number)
    starter.join(240)
    assert not (runs[0].folder / "shards.json").exists()
    outcome = execute(runs)
    assert [run.name for run in outcome.done] == ["pack", "split"]
    starts = log.read_text().count("$ uniemox data shard")
    if number == signal.SIGKILL:
        assert starts == 1
    else:
        assert "repeat the command to resume" in (tmp_path / "said").read_text()
        assert starts == 2
        assert [line["exit_code"] == 0 for line in journal(tmp_path) if line["name"] == "pack"] == [False, True]
    assert [line["name"] for line in journal(tmp_path)][-1] == "split"


def test_each_run_sees_gpus_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four, two runs have two and one each; a run of all four waits until all are free, and the others behind it."""
    seen = tmp_path / "seen"
    real = subprocess.Popen
    note = (
        "import os, sys, time; f = open(sys.argv[1], 'a'); v = os.environ.get('CUDA_VISIBLE_DEVICES');"
        "f.write(f'{sys.argv[2]} start {v}\\n'); f.flush(); time.sleep(0.7); f.write(f'{sys.argv[2]} end {v}\\n')"
    )

    def noting(words: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        name = words[words.index("--seed") + 1]
        return real([sys.executable, "-c", note, str(seen), name], **options)

    monkeypatch.setattr(subprocess, "Popen", noting)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    runs = []
    for name, processes, images in (("two", 2, 900), ("one", 1, 800), ("all", 4, 700), ("last", 1, 600)):
        options = {"out": "{out}", "seed": name}
        runs.append(make_run(tmp_path, name, "finetune", options=options, processes=processes, images=images))
    execute(runs, jobs=4, gpus=4)
    lines = [line.split(maxsplit=2) for line in seen.read_text().splitlines()]
    devices = {name: given.split(",") for name, what, given in lines if what == "start"}
    assert {name: len(given) for name, given in devices.items()} == {"two": 2, "one": 1, "all": 4, "last": 1}
    assert set(devices["all"]) == {"4", "5", "6", "7"}
    running: dict[str, set[str]] = {}
    for name, what, given in lines:
        if what == "end":
            del running[name]
            continue
        assert not set(given.split(",")) & set().union(*running.values())
        running[name] = set(given.split(","))
    order = [name for name, what, _ in lines if what == "start"]
    assert order.index("all") < order.index("last")
    with pytest.raises(ConfigError, match="a run of this plan has 4 processes, but there are 3 GPUs"):
        execute(runs, jobs=4, gpus=3)


def test_what_prepares_data_sees_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []
    real = subprocess.Popen

    def noting(words: Sequence[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
        given.append(env)
        return real(words, env=env, **options)

    monkeypatch.setattr(subprocess, "Popen", noting)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    execute([split(tmp_path, "first", 0)], gpus=2)
    execute([split(tmp_path, "second", 1)])
    assert [env.get("CUDA_VISIBLE_DEVICES") for env in given] == ["", None]


@pytest.mark.parametrize(
    "name", ["locks/{key}.lock", "logs/{key}.log", JOURNAL, "done", "locks", "runs", "runs/data-split-{key}"]
)
def test_links_in_the_folder_of_somebody_else_lead_nowhere(tmp_path: Path, name: str) -> None:
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


def test_a_journal_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """Also if all runs are done, so that nobody writes to it."""
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(DataError, match="is a pipe"):
        seconds_of(tmp_path)
    (tmp_path / JOURNAL).unlink()
    (tmp_path / JOURNAL).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a link"):
        seconds_of(tmp_path)
