"""Environment of Python processes that this one starts."""

import os
from pathlib import Path

import uniemox


def safe_environment() -> dict[str, str]:
    """Return this process's environment, in which Python imports nothing from the working folder.

    A stranger's folder may hold a json.py or a uniemox.py. The setting also reaches the processes of torchrun. The
    folder of this package stays importable if it is not installed.
    """
    root = str(Path(uniemox.__file__).parents[1])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, root]))}
