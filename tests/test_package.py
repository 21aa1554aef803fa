"""What `import uniemox` offers, and that it costs nothing."""

import subprocess
import sys

import pytest

import uniemox

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
