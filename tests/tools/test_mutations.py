"""The command that inserts faults into a module: its outcomes, and that the tree itself stays unchanged."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import is_there, wait_until
from tools import mutations
from tools.faults import Fault
from tools.mutations import INTERRUPTED, ROOT, Phase, find_tests, main

MODULE = '''"""Numbers."""


def is_larger(first, second):
    """Compare.

    >>> is_larger(2, 1)
    True
    """
    return not first <= second


def double(number):
    return 2 * number
'''
TEST = """from uniemox.tiny import double


def test_double():
    assert double(3) == 6
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one module and its tests."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--doctest-modules")
    root = tmp_path / "project"
    for name, text in {"uniemox/__init__.py": "", "uniemox/tiny.py": MODULE, "tests/test_tiny.py": TEST}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    return root


@pytest.mark.thorough
def test_faults_count_as_noticed_if_a_test_or_doctest_fails(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only equal numbers show that <= became <, and no test compares them."""
    assert main(["uniemox/tiny.py"], tree) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == [
        "noticed      uniemox/tiny.py:10  not first <= second  ->  (first <= second)",
        "not noticed  uniemox/tiny.py:10  first <= second  ->  (first < second)",
        "noticed      uniemox/tiny.py:14  2  ->  (1)",
        "noticed      uniemox/tiny.py:14  2  ->  (3)",
        "noticed      uniemox/tiny.py:14  2 * number  ->  (2 / number)",
    ]
    assert summary == "4 of 5 faults noticed (80 %), 0 by their time"
    assert (tree / "uniemox/tiny.py").read_text() == MODULE


def test_ctrl_c_prints_the_share_of_tried_faults(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter(["noticed", "timed out"])

    def next_outcome(*_: object) -> str:
        for outcome in outcomes:
            return outcome
        raise KeyboardInterrupt

    monkeypatch.setattr(mutations, "_outcome", next_outcome)
    assert main(["uniemox/tiny.py", "--count", "4", "--tests", "tests/test_tiny.py"], tree) == INTERRUPTED
    *_, stopped, summary = capsys.readouterr().out.splitlines()
    assert stopped == "stopped after 2 of 4 faults"
    assert summary == "2 of 2 faults noticed (100 %), 1 by their time"


def test_tests_that_fail_without_a_fault_are_refused(tree: Path) -> None:
    (tree / "tests/test_tiny.py").write_text(TEST.replace("6", "7"))
    with pytest.raises(SystemExit, match="the tests fail without a fault"):
        main(["uniemox/tiny.py"], tree)


@pytest.mark.parametrize(
    ("exit_code", "outcome"), [(0, "not noticed"), (1, "noticed"), (2, "noticed"), (-9, "noticed")]
)
def test_outcomes_by_exit_code(exit_code: int, outcome: str, tmp_path: Path) -> None:
    """A crash, or a module that can't be imported, is noticed; the last phase decides."""
    if exit_code < 0:
        code = f"import os; os.kill(os.getpid(), {-exit_code})"
    else:
        code = f"raise SystemExit({exit_code})"
    phases = [Phase([sys.executable, "-c", script], limit_s=60) for script in ("", code)]
    assert mutations._outcome(tmp_path, phases) == outcome
    with pytest.raises(RuntimeError, match="pytest ended with 4"):
        mutations._outcome(tmp_path, [Phase([sys.executable, "-c", "raise SystemExit(4)"], limit_s=60)])


def test_endless_run_is_stopped_with_its_processes(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 60 & echo $! > pid; wait"]
    assert mutations._outcome(tmp_path, [Phase(command, limit_s=0.5)]) == "timed out"
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_there(pid), seconds=20)


def test_find_tests_lists_importing_files_first() -> None:
    """The folder's files, importing ones first, then the module; a top-level module has one test file."""
    *files, module = find_tests(ROOT, "uniemox/persons/fitting.py")
    assert module == "uniemox/persons/fitting.py"
    imports = ["uniemox.persons.fitting" in (ROOT / name).read_text() for name in files]
    assert imports == sorted(imports, reverse=True) != imports[::-1]
    assert sorted(files) == [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests/persons").glob("test_*.py"))]
    assert find_tests(ROOT, "uniemox/intervals.py") == ["tests/test_intervals.py", "uniemox/intervals.py"]
    with pytest.raises(SystemExit, match="no tests of uniemox/nothing/here"):
        find_tests(ROOT, "uniemox/nothing/here.py")


def test_the_same_seed_draws_the_same_faults(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[Fault]] = []
    monkeypatch.setattr(mutations, "_try_each", lambda _copy, _name, faults, _tests: drawn.append(faults) or [])
    for seed in ("1", "1", "2"):
        main(["uniemox/tiny.py", "--count", "2", "--seed", seed], tree)
    assert drawn[0] == drawn[1] != drawn[2]
    assert [len(faults) for faults in drawn] == [2, 2, 2]
