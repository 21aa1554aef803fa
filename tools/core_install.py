"""Test the built wheel with its core dependencies alone, in an environment of its own: python -m tools.core_install

Needs the network, or pip's own cache; about a minute.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from tests.drawn import draw_image
from tests.predict.networks import tiny_network

ROOT = Path(__file__).parents[1]
FORBIDDEN = ("torch", "timm", "scipy", "scikit-learn", "matplotlib", "pyarrow", "onnx", "opencv-python-headless")
CODE = (
    "import uniemox, sys; p = uniemox.load(sys.argv[1], finder=None); print(p.predict(sys.argv[2]).to_dict()['kind'])"
)


def run(*command: object) -> str:
    """Return the standard output of a command that must succeed."""
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd="/").stdout


def main() -> None:
    """Build, install and predict.

    Raises:
        CalledProcessError: If a command fails.
        AssertionError: If a package is installed that the core must not need, or a result is wrong.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        [wheel] = folder.glob("*.whl")
        venv.create(folder / "venv", with_pip=True)
        python = folder / "venv" / "bin" / "python"
        uniemox = folder / "venv" / "bin" / "uniemox"
        run(python, "-m", "pip", "install", "--quiet", wheel)
        installed = {package["name"] for package in json.loads(run(python, "-m", "pip", "list", "--format", "json"))}
        assert not installed & set(FORBIDDEN), installed
        model = tiny_network(folder / "model.onnx")
        draw_image(1).save(folder / "a.png")
        assert "predict" in run(uniemox, "--help")
        line = json.loads(run(uniemox, "predict", folder / "a.png", "--model", model, "--no-persons", "--json"))
        assert sum(line["scene"].values()) > 0.999
        assert run(python, "-c", CODE, model, folder / "a.png") == "evoked\n"
        if (ROOT / "uniemox" / "predict" / "embedded" / "scene.onnx").exists():
            json.loads(run(uniemox, "predict", folder / "a.png", "--json"))
        print(f"{wheel.name}: predict works with {', '.join(sorted(installed))}")


if __name__ == "__main__":
    main()
