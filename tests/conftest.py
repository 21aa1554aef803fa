"""What several tests need: stored numbers, real images, small networks."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import Tensor

import uniemox.onnx_sessions  # noqa: F401 - without telemetry, before a test imports onnxruntime
from uniemox.checkpoints.reading import read_weight_file
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.teacher.clip import ClipTeacher
from uniemox.views.config import MaskConfig

# Machines that run the tests are slow and shared: no test fails for taking long.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")
# Several processes run tests side by side, and networks this small are slower on many threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CHROMIUM is None and not config.getoption("--require-browser"):
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason=NO_CHROMIUM))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    random.seed(0)  # each test draws the same, whatever ran before it
    np.random.seed(0)
    torch.manual_seed(0)
    if CHROMIUM is None and item.config.getoption("--require-browser") and item.get_closest_marker("browser"):
        pytest.fail(NO_CHROMIUM)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C reaches this process and those that it starts, also where the tests were started with it ignored.

    Jobs in the background, nohup and some runners do so, and what is ignored stays so in every process below.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Checkpoints and features from the methods' own code."""
    return shared / "golden" / "checkpoints"


@pytest.fixture(params=["n2_c8_k1", "n6_c32_k3"])
def equations(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Inputs and results of every equation in float64, from an independent computation."""
    return load_npz(REFERENCE / "equations" / f"{request.param}.npz")


@pytest.fixture
def build_model() -> Callable[..., UniEmoX]:
    """A small model: ViT 48 wide, 3 blocks, images of 64 px, 16 patches; settings as ModelConfig."""

    def build(**settings: object) -> UniEmoX:
        torch.manual_seed(0)
        encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3)
        decoder = DecoderConfig(width=16, depth=2, heads=4)
        return UniEmoX(encoder, ModelConfig(**{"decoder": decoder, "teacher_width": None, **settings}))

    return build


def load_npz(path: Path) -> dict[str, Tensor]:
    """Numeric arrays of a .npz file as tensors."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind in "fiu"}


def images_of(paths: list[Path], size: int, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Tensor:
    """Real images, the part inside a relative box (x1, y1, x2, y2) squashed to a square. (N, 3, size, size) uint8."""
    views = []
    for path in paths:
        with Image.open(path) as image:
            width, height = image.size
            part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            view = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=part)
        views.append(torch.from_numpy(np.asarray(view).copy()).permute(2, 0, 1))
    return torch.stack(views)


@pytest.fixture(scope="session")
def tiny_clip(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> ClipTeacher:
    """The golden CLIP (open_clip, random weights, 16 channels), loaded as a user would: from a local folder."""
    return ClipTeacher.load(f"local-dir:{clip_folder(golden, tmp_path_factory.mktemp('clip'))}")


def clip_folder(golden: Path, folder: Path, *, quick_gelu: bool = False) -> Path:
    """A folder as open_clip reads it, with the golden CLIP's weights."""
    vision = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    shutil.copy(golden / "clip" / "checkpoint.pth", folder / "open_clip_pytorch_model.bin")
    return folder


def mae_model(golden: Path, percent: int, *, norm_pix: bool) -> UniEmoX:
    """The scene stream alone with the weights of golden/checkpoints/mae_pretrain, hiding `percent` of the patches."""
    weights = dict(read_weight_file(golden / "mae_pretrain" / "checkpoint.pth").content["model"])
    off = dict.fromkeys(LossWeights.__slots__[1:], 0.0)
    config = ModelConfig(
        fusion=None,
        norm_pix=norm_pix,
        mask=MaskConfig(ratio=percent / 100),
        decoder=DecoderConfig(width=32, depth=2, heads=4),
        losses=LossWeights(**off),
    )
    model = UniEmoX(build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3), config)
    torch.testing.assert_close(model.decoder.pos_embed, weights.pop("decoder_pos_embed"), rtol=0, atol=1e-7)
    names = {"decoder_embed.": "embed.", "decoder_": "decoder.", "mask_token": "decoder.mask_token"}
    state = {}
    for name, value in weights.items():
        ours = next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), None)
        state[ours or f"encoder.{name}"] = value
    model.load_state_dict(state)
    return model
