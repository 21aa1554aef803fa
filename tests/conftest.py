"""What several tests need: stored numbers, real images, small networks."""

import gc
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import uniemox.io.onnx_sessions  # noqa: F401 - without telemetry, before a test imports onnxruntime
from tests.decoders import end_idle_decoders, keep_idle_decoders
from uniemox.io.parallel import usable_cores

if TYPE_CHECKING:  # torch is imported where it is used: the process that shares out the tests needs none
    from torch import Tensor

    from uniemox.model.uniemox import UniEmoX
    from uniemox.teacher.sources import ClipTeacher

# Machines that run the tests are slow and shared: no test fails for taking long.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
# Millions of objects of libraries and tests stay until the end: the collector need not look at them again and again.
gc.disable()
# Several processes run tests side by side, and networks this small are slower on many threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "needs Chromium on the PATH: apt-get install chromium"
SHARED = Path(__file__).resolve().parents[2] / "shared"
REFERENCE = Path(__file__).parent / "reference"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden files and real images beside the project."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with golden files and real images")
    return SHARED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-browser", action="store_true", help="fail, not skip, where there is no Chromium")


def pytest_configure(config: pytest.Config) -> None:
    """The folder of `tests.runs.once`, which the processes of pytest-xdist inherit."""
    if not hasattr(config, "workerinput"):
        os.environ["UNIEMOX_TESTS_MADE"] = tempfile.mkdtemp(prefix="uniemox-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["UNIEMOX_TESTS_MADE"])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than cores: tests wait for servers, processes and files for a quarter of their time."""
    return usable_cores() + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # First, so that no process still works on one when the others are done.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if CHROMIUM is None and not config.getoption("--require-browser"):
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


def pytest_collection_finish() -> None:
    gc.freeze()
    # With Python's own thresholds, the collector takes a twentieth of the suite's time.
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    import torch

    if "torch.onnx._internal.exporter" in sys.modules:
        import tools.onnx_operators  # noqa: F401
    torch.set_num_threads(1)
    # Each test draws the same, whatever ran before it.
    random.seed(0)
    np.random.seed(0)
    # Without a GPU, this function would only remember a traceback for one, in every test.
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)
    if CHROMIUM is None and item.config.getoption("--require-browser") and item.get_closest_marker("browser"):
        pytest.fail(NO_CHROMIUM)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Chromium, by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session", autouse=True)
def _idle_decoders() -> Iterator[None]:
    """Decoding processes serve one test after the other."""
    keep_idle_decoders()
    yield
    end_idle_decoders()


@pytest.fixture
def new_decoders() -> Iterator[None]:
    """Each pool starts its decoding processes, and ends them when it is closed."""
    end_idle_decoders()
    yield
    keep_idle_decoders()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches this process and those that it starts, also where the tests were started with it ignored.

    Jobs in the background, nohup and some runners do so, and what is ignored stays so in every process below.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fine-tuning ends with an empty model.onnx: torch takes seconds to make one, and `finetuned` runs have theirs."""
    monkeypatch.setattr("uniemox.finetune.run.export_classifier", lambda _, __, path: path.touch())


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Checkpoints and features from the methods' own code."""
    return shared / "golden" / "checkpoints"


@pytest.fixture(params=["n2_c8_k1", "n6_c32_k3"])
def equations(request: pytest.FixtureRequest) -> "dict[str, Tensor]":
    """Inputs and results of every equation in float64, from an independent computation."""
    from tests.networks import load_npz

    return load_npz(REFERENCE / "equations" / f"{request.param}.npz")


@pytest.fixture
def build_model() -> "Callable[..., UniEmoX]":
    """`tests.networks.small_model`."""
    from tests.networks import small_model

    return small_model


@pytest.fixture(scope="session")
def tiny_clip(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> "ClipTeacher":
    """The golden CLIP (open_clip, random weights, 16 channels), loaded as a user would: from a local folder."""
    from tests.networks import clip_folder
    from uniemox.teacher.sources import ClipTeacher

    return ClipTeacher.load(f"local-dir:{clip_folder(golden, tmp_path_factory.mktemp('clip'))}")
