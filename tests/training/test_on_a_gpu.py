"""Behaviour that matters on a GPU, tested on the CPU: memory, devices, compiled graphs, resuming, precision."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.networks import small_model
from tests.runs import CPU, scenes, tiny_pretraining
from tests.training.test_loop import SAMPLE, batches, plan, trainer
from uniemox.errors import CheckpointError, OutOfMemoryError
from uniemox.model.encoder import encode_visible
from uniemox.pretrain.run import pretrain
from uniemox.pretrain.step import PretrainBatch, forward
from uniemox.training import hardware, run_folder
from uniemox.training import trainer as trainer_module
from uniemox.training.callback import Callback
from uniemox.training.config import HardwareConfig
from uniemox.training.counting import multiply_adds
from uniemox.training.hardware import ready_to_train, setup_device, with_precision
from uniemox.training.journal import read_metrics
from uniemox.training.memory import ActivationCount, activation_bytes
from uniemox.training.optimization import train_step
from uniemox.training.processes import limit_waits
from uniemox.training.run_folder import begin_run
from uniemox.training.state import ResumePoint
from uniemox.views.patches import patchify, random_mask

DEVICE = torch.device("cpu")


def trace_only(module: nn.Module) -> None:
    """Compile a module without a compiler: torch traces and differentiates its graphs and runs them eagerly."""
    module._compiled_call_impl = torch.compile(module._call_impl, backend="aot_eager")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compile without a compiler in the test."""
    monkeypatch.setattr(nn.Module, "compile", trace_only)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_source_tree_without_metadata_can_begin_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PYTHONPATH the package is not installed, so its version can't be looked up."""

    def version(name: str) -> str:
        if name == "uniemox":
            raise ModuleNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(run_folder, "version", version)
    with begin_run(tmp_path / "run", "pretrain", tiny_pretraining(), scenes(), resume=False) as is_begun:
        assert not is_begun


def test_a_process_uses_its_own_gpu_and_true_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert setup_device(HardwareConfig()) == torch.device("cuda", 3)
    assert current == [torch.device("cuda", 3)]
    assert not torch.backends.cudnn.allow_tf32


def test_a_resumed_run_keeps_its_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began in float32 does not change to bfloat16 on another machine."""
    config = tiny_pretraining()
    with begin_run(tmp_path / "run", "pretrain", config, scenes(), resume=False):
        pass
    monkeypatch.setattr(hardware, "fast_precision", lambda: "bfloat16")
    undecided = replace(config, hardware=replace(CPU, precision=None))
    assert with_precision(undecided, tmp_path / "run").hardware.precision == "float32"
    assert with_precision(undecided, tmp_path / "new").hardware.precision == "bfloat16"
    requested = replace(config, hardware=replace(CPU, precision="bfloat16"))
    assert with_precision(requested, tmp_path / "run").hardware.precision == "bfloat16"


def test_batch_norms_of_timm_are_convolutional_too() -> None:
    """timm's BatchNormAct2d is a subclass of BatchNorm2d."""
    model = ready_to_train(timm.create_model("mobilenetv3_small_050", num_classes=2), DEVICE)
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[2] > 1]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_measuring_memory_frees_the_graph() -> None:
    """The hook used to return the tensor that holds the graph that holds the hook's result."""
    layer = nn.Linear(4, 4)
    with ActivationCount(layer):
        hidden = layer(torch.ones(2, 4)).tanh()
        output = hidden.sum()
    stored = weakref.ref(hidden)
    del hidden, output
    gc.collect()
    assert stored() is None


@pytest.mark.parametrize("images", [2, 4, 7])
def test_memory_of_a_batch_is_measured_on_small_ones(images: int) -> None:
    """Copies of the weights in bfloat16 count once, and activations once per image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8**2, 16), nn.GELU(), nn.Linear(16, 4))

    def probe(pixels: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            model(pixels.float())

    with ActivationCount(model) as stored:
        probe(torch.zeros(images, 3, 8, 8, dtype=torch.uint8))
    assert activation_bytes(model, probe, 8, images) == stored.bytes


def test_fused_layers_are_counted() -> None:
    """Torch's counter knows neither its fused transformer layer, which runs in evaluation, nor CPU attention."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, dim_feedforward=32, batch_first=True)
    tokens = 3
    length = 5
    width = 16
    hidden = 32
    x = torch.ones(tokens, length, width)
    # Projections, MLP, attention.
    products = 4 * width**2 + 2 * width * hidden + 2 * length * width
    assert multiply_adds(lambda: layer.train()(x)) == tokens * length * products
    with torch.inference_mode():
        assert multiply_adds(lambda: layer.eval()(x)) == tokens * length * products
    assert torch.backends.mha.get_fastpath_enabled()


def test_waits_are_limited_for_one_type_of_device(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        limit_waits(DEVICE, timedelta(seconds=7))
        backend = dist.distributed_c10d._get_default_group()._get_backend(DEVICE)
        assert backend.options._timeout == timedelta(seconds=7)
    finally:
        dist.destroy_process_group()


def test_all_processes_load_the_checkpoint_that_the_first_one_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow network file system, this process also sees step 5, or does not yet see step 9."""
    run = trainer(tmp_path, Callback())
    run.checkpoints.keep = 3
    for step in (3, 5):
        run.checkpoints.save(ResumePoint(step), run.model, run.optimizer)
    run.checkpoints.wait()
    assert run.resume().step == 5
    monkeypatch.setattr(trainer_module, "gather_numbers", lambda number: [[3], [number]])
    assert run.resume().step == 3
    monkeypatch.setattr(trainer_module, "gather_numbers", lambda number: [[9], [number]])
    with pytest.raises(CheckpointError, match="step-00000009"):
        run.resume()
    monkeypatch.setattr(trainer_module, "gather_numbers", lambda number: [[-1], [number]])
    assert run.resume().step == 0


def test_too_little_gpu_memory_names_the_options_that_need_less() -> None:
    model = nn.Linear(1, 1)

    def losses_of(batch: int) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    with pytest.raises(OutOfMemoryError, match="batch of 128 images: CUDA out of memory") as caught:
        train_step(model, torch.optim.SGD(model.parameters()), [128], lambda size: size, losses_of, None)
    for option in ("--accumulation", "--hardware.grad-checkpointing", "--batch-size"):
        assert option in str(caught.value)


def test_a_smaller_batch_compiles_nothing(tmp_path: Path, no_compiler: None) -> None:
    """An unreadable image makes a batch smaller, for which all graphs would be compiled again."""
    compiled_for = []

    def backend(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        compiled_for.append(examples[0].shape[0])
        return graph.forward

    double = torch.compile(lambda x: x * 2, backend=backend)
    loader = [*batches(1, samples=(SAMPLE,) * 8), *batches(1, samples=(SAMPLE,) * 7)]
    with closing(trainer(tmp_path, Callback()).steps(plan(2), loader)) as steps:
        for step in steps:
            count = len(step.batches[0].samples)
            assert double(torch.ones(count)).sum() == 2 * count
            step.report({"loss": 1.0})
    assert compiled_for == [8]


def test_the_loader_is_closed_with_the_run(tmp_path: Path) -> None:
    """Otherwise its processes live until the interpreter's end, which waits for them."""
    is_closed = []

    def loader() -> Iterator[Any]:
        try:
            yield from batches(3)
        finally:
            is_closed.append(True)

    stream = loader()
    with closing(trainer(tmp_path, Callback()).steps(plan(3), stream)) as steps:
        next(steps)
    assert is_closed == [True]


@pytest.mark.thorough
def test_compiled_runs_measure_gradient_norms(tmp_path: Path, no_compiler: None) -> None:
    """A compiled backward pass frees its buffers, so it can't run once for each loss."""
    config = tiny_pretraining(hardware=replace(CPU, compile=True), diagnose_every=2)
    pretrain(config, scenes(), tmp_path / "run")
    diagnosed = [sum(name.startswith("grad_norm_") for name in line) for line in read_metrics(tmp_path / "run")]
    assert diagnosed == [4, 0, 4, 0]


def test_the_sum_over_the_blocks_is_float32_under_autocast() -> None:
    """timm and MAE do the same; in bfloat16 the gradient's error is a third larger."""
    model = small_model(teacher_width=16).eval()
    types = []
    for block in [model.encoder.blocks[-1], model.decoder.blocks[-1]]:  # type: ignore[union-attr,index]
        block.register_forward_hook(lambda _module, _inputs, output: types.append(output.dtype))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        patches = patchify(pixels, 16)
        tokens = encode_visible(model.encoder, patches, random_mask(torch.rand(2, 16), 0.75).visible)
    assert types == [torch.float32]
    assert tokens.shape == (2, 5, 48)
    batch = PretrainBatch(
        scene=torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        person=torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
        image_features=torch.randn(2, 16),
        text_features=torch.randn(2, 16),
    )
    forward(model, batch, precision="bfloat16")
    assert types == [torch.float32] * 3
