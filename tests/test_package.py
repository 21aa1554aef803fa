"""What `import uniemox` offers, that it costs nothing, and what its extras bring."""

import ast
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import uniemox
from uniemox.cli.curate_tables import PACKAGES

HEAVY = {"torch", "timm", "numpy", "PIL", "onnxruntime"}


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, uniemox; dir(uniemox); print({HEAVY!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_public_name_is_there_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import uniemox; print([getattr(uniemox, name).__name__ == name for name in uniemox.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str([True] * len(uniemox.__all__))


def test_names_are_shown_and_others_are_refused() -> None:
    assert set(dir(uniemox)) == {*uniemox.__all__, "__version__"}
    with pytest.raises(AttributeError, match="has no attribute 'predict_all'"):
        uniemox.predict_all  # noqa: B018


def brought_by(extra: str) -> set[str]:
    """Names of all distributions that the package brings with an extra, as they are installed here."""
    found, waiting = set[str](), [("uniemox", name) for name in extra.split(",")]
    seen = set[tuple[str, str]]()
    while waiting:
        name, with_extra = waiting.pop()
        if (name, with_extra) in seen:
            continue
        seen.add((name, with_extra))
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # of another system
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": with_extra}):
                waiting += [(canonicalize_name(requirement.name), one) for one in (requirement.extras or {""})]
    return found


def test_each_extra_is_enough_for_the_commands_that_name_it() -> None:
    """What a command looks for with `need` comes with the extra that its message names, and with what that brings."""
    distributions, checked = packages_distributions(), 0
    for path in (Path(uniemox.__file__).parent / "cli").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "need"):
                continue
            words = [word.value for word in call.args if isinstance(word, ast.Constant)]
            words += PACKAGES if len(words) < len(call.args) else []
            [extra] = [keyword.value.value for keyword in call.keywords if isinstance(keyword.value, ast.Constant)]
            brought = brought_by(str(extra))
            for word in words:
                of_word = {canonicalize_name(name) for name in distributions.get(str(word), [])}
                assert not of_word or of_word & brought, f"{path.name}: {extra} does not bring {word}"
                checked += 1
    assert checked > 40
