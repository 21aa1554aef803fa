"""One step: its results, its errors, and equal results with several processes or batches."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uniemox.errors import ConfigError, NonFiniteLossError, ShapeError, TeacherError
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import PretrainBatch, forward, loss_gradient_norms, pretrain_step
from uniemox.training.hardware import ready_to_train
from uniemox.training.optimization import build_optimizer
from uniemox.training.processes import gather_rows, sum_over_processes

Build = Callable[..., UniEmoX]


class CountingTeacher:
    """Random features, the same for the same input, and a record of calls."""

    width = 16

    def __init__(self) -> None:
        self.calls: list[str] = []

    def image_features(self, pixels: Tensor, keys: list[str]) -> Tensor:
        assert pixels.min() >= 0
        assert pixels.max() <= 1
        self.calls.append("image")
        return pixels.flatten(1)[:, :16] + 0.1

    def text_features(self, texts: list[str]) -> Tensor:
        self.calls.append("text")
        return torch.tensor([[float(len(text) + i % 3) for i in range(16)] for text in texts])


def make_batch(count: int = 6, seed: int = 0) -> PretrainBatch:
    generator = torch.Generator().manual_seed(seed)
    scene, person = torch.randint(0, 256, (2, count, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return PretrainBatch(
        scene=scene,
        person=person,
        texts=[f"text {i}" for i in range(count)],
        keys=[f"{i}.jpg" for i in range(count)],
        image_features=torch.randn(count, 16, generator=generator),
        text_features=torch.randn(count, 16, generator=generator),
        scene_noise=torch.rand(count, 16, generator=generator),
        person_noise=torch.rand(count, 16, generator=generator),
    )


def part(batch: PretrainBatch, rows: slice) -> PretrainBatch:
    return PretrainBatch(**{name: getattr(batch, name)[rows] for name in PretrainBatch.__slots__})


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): p.grad for name, p in model.named_parameters() if p.grad is not None}


def summed(results: dict[str, float]) -> dict[str, float]:
    """Results without the cosines within a batch, which depend on how the images are divided into batches."""
    return {name: value for name, value in results.items() if name not in ("fused_cosine", "offset_share")}


def frozen_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.0)


def test_steps_lower_the_loss_and_report_every_part(build_model: Build) -> None:
    model = build_model()
    batch = make_batch()
    optimizer = build_optimizer(model, lr=1e-3)
    results = [pretrain_step(model, optimizer, [batch]) for _ in range(20)]
    assert set(results[0]) == {*LossWeights.__slots__, "total", "grad_norm", "fused_cosine", "offset_share"}
    assert results[-1]["total"] < results[0]["total"]
    first = results[0]
    assert first["total"] == pytest.approx(sum(first[name] for name in LossWeights.__slots__), rel=1e-5)


def test_teacher_computes_only_features_that_are_needed_and_missing(build_model: Build) -> None:
    off = {"contrastive_feature_alignment": 0.0, "semantic_visual_alignment": 0.0}
    bare = replace(make_batch(), image_features=None, text_features=None)
    for weights, inputs, expected in [
        (LossWeights(), bare, ["image", "text"]),
        # L3 alone needs no texts.
        (LossWeights(contrastive_feature_alignment=0.0), bare, ["image"]),
        (LossWeights(semantic_visual_alignment=0.0), bare, ["image", "text"]),
        # No loss needs a teacher.
        (LossWeights(**off), bare, []),
        # The batch has all features.
        (LossWeights(), make_batch(), []),
    ]:
        teacher = CountingTeacher()
        model = build_model(losses=weights)
        pretrain_step(model, frozen_optimizer(model), [inputs], teacher=teacher)
        assert teacher.calls == expected
    model = build_model()
    with pytest.raises(TeacherError, match="neither a teacher nor features"):
        pretrain_step(model, frozen_optimizer(model), [bare])


@pytest.mark.parametrize("name", LossWeights.__slots__)
def test_non_finite_loss_stops_before_any_weight_changes(name: str, build_model: Build) -> None:
    model = build_model()
    batch = make_batch()
    optimizer = build_optimizer(model, lr=1.0)
    broken = {
        "scene_reconstruction": {"scene_noise": batch.scene_noise},
        "person_reconstruction": {"person_noise": batch.person_noise},
        "contrastive_feature_alignment": {"text_features": torch.full((6, 16), float("nan"))},
        "semantic_visual_alignment": {"image_features": torch.full((6, 16), float("inf"))},
    }[name]
    # Only this stream's prediction overflows.
    if name.endswith("reconstruction"):
        rows = slice(0, 6) if name.startswith("scene") else slice(6, 12)
        model.decoder.register_forward_hook(lambda _, __, out: out.index_fill(0, torch.arange(12)[rows], float("inf")))
    elif name.startswith("semantic"):
        model = build_model(losses=LossWeights(contrastive_feature_alignment=0))
        optimizer = build_optimizer(model, lr=1.0)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match=f"^{name} is (nan|inf); no weight was changed"):
        pretrain_step(model, optimizer, [make_batch(seed=1), replace(batch, **broken)])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not optimizer.state
    assert not gradients(model)


def test_non_finite_gradient_stops_before_any_weight_changes(build_model: Build) -> None:
    model = build_model()
    model.embed.weight.register_hook(lambda grad: grad * float("inf"))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"^grad_norm is"):
        pretrain_step(model, build_optimizer(model, lr=1.0), [make_batch()])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_batches_that_cannot_train_are_refused(build_model: Build) -> None:
    model = build_model()
    batch = make_batch()
    for batches in ([], [batch, part(batch, slice(0, 0))]):
        with pytest.raises(ConfigError, match="at least one batch"):
            pretrain_step(model, frozen_optimizer(model), batches)
    for texts in ((), ("one",)):
        with pytest.raises(ConfigError, match="L2 needs a text for every image: 6 images"):
            pretrain_step(
                model,
                frozen_optimizer(model),
                [replace(batch, text_features=None, texts=texts)],
                teacher=CountingTeacher(),
            )
    with pytest.raises(ShapeError, match="as many rows"):
        pretrain_step(model, frozen_optimizer(model), [replace(batch, text_features=batch.text_features[:5])])
    with pytest.raises(ShapeError, match="uint8"):
        pretrain_step(model, frozen_optimizer(model), [replace(batch, scene=batch.scene / 255)])


def test_text_features_are_computed_in_float32(build_model: Build) -> None:
    """So that what is kept on disk does not depend on the first run's precision."""

    class Linear(CountingTeacher):
        def text_features(self, texts: list[str]) -> Tensor:
            features = torch.ones(len(texts), 4) @ torch.ones(4, 16)
            assert features.dtype == torch.float32
            return features

    model = build_model()
    batch = replace(make_batch(), text_features=None)
    pretrain_step(model, frozen_optimizer(model), [batch], teacher=Linear(), precision="bfloat16")


def test_clipping_bounds_the_gradient(build_model: Build) -> None:
    model = build_model()
    result = pretrain_step(model, frozen_optimizer(model), [make_batch()], max_grad_norm=0.1)
    clipped = torch.stack([grad.norm() for grad in gradients(model).values()]).norm()
    assert result["grad_norm"] > 0.1
    assert result["clipped"] == 1
    assert clipped.item() == pytest.approx(0.1, rel=1e-3)
    assert pretrain_step(model, frozen_optimizer(model), [make_batch()], max_grad_norm=1e6)["clipped"] == 0


def test_loss_gradient_norms_are_those_of_each_loss_alone(build_model: Build) -> None:
    weights = {name: weight for weight, name in enumerate(LossWeights.__slots__, 1)}
    model = build_model(losses=LossWeights(**weights))
    batch = make_batch()
    norms = loss_gradient_norms(model, batch)
    for name, weight in weights.items():
        model.zero_grad()
        (weight * forward(model, batch).losses[name]).backward()
        encoder_gradients = [parameter.grad for parameter in model.encoder.parameters() if parameter.grad is not None]
        assert norms[f"grad_norm_{name}"] == pytest.approx(nn.utils.get_total_norm(encoder_gradients).item(), rel=1e-5)
    model.zero_grad()
    loss_gradient_norms(model, batch)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accumulated_batches_of_any_size_give_the_joined_batchs_gradient(build_model: Build) -> None:
    """All but L2, whose rows compare with the texts of one batch at a time (documented). Float32, 1e-5."""
    model = build_model(losses=LossWeights(contrastive_feature_alignment=0))
    batch = make_batch()
    joined = pretrain_step(model, frozen_optimizer(model), [batch])
    expected = gradients(model)
    parts = [part(batch, slice(0, 1)), part(batch, slice(1, 4)), part(batch, slice(4, 6))]
    together = pretrain_step(model, frozen_optimizer(model), parts)
    assert summed(together) == pytest.approx(summed(joined), rel=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


# Samples of each process; the second one's batch is short, as at the end of an epoch.
SIZES = (4, 2)


def worker(rank: int, folder: Path) -> None:
    """One of two processes: its rows of the batch, through DDP."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(0, SIZES[0]) if rank == 0 else slice(SIZES[0], sum(SIZES))
    assert gather_rows(torch.full((SIZES[rank], 2), float(rank))).sum().item() == 2 * SIZES[1]
    assert sum_over_processes(torch.tensor(float(rank))).item() == 1
    batch = make_batch(sum(SIZES))
    model = DistributedDataParallel(small_model())
    results = pretrain_step(model, frozen_optimizer(model), [part(batch, rows)])
    two = pretrain_step(model, frozen_optimizer(model), [part(batch, rows), part(batch, rows)])  # no_sync between
    if rank == 0:
        torch.save((results, two, gradients(model)), folder / "results")
    broken = replace(part(batch, rows), image_features=torch.full((SIZES[rank], 16), float("nan") if rank else 1.0))
    try:
        pretrain_step(model, frozen_optimizer(model), [broken])
    except NonFiniteLossError:
        (folder / f"stopped {rank}").touch()
    # Another number of batches on one process would hang; it is refused on both.
    try:
        pretrain_step(model, frozen_optimizer(model), [part(batch, rows)] * (1 + rank))
    except ConfigError:
        (folder / f"refused {rank}").touch()
    groups = build_optimizer(model.module, lr=1.0).param_groups
    assert sum(len(group["params"]) for group in groups if group["weight_decay"] == 0) == len(spared(small_model()))
    # torch.compile takes a second to import.
    if rank == 0:
        assert unwrap_model(torch.compile(model)).config is model.module.config
    dist.destroy_process_group()


def small_model() -> UniEmoX:
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3)
    return UniEmoX(encoder, ModelConfig(decoder=DecoderConfig(width=16, depth=2, heads=4)))


def test_two_processes_give_one_processs_losses_and_gradients(tmp_path: Path) -> None:
    """All four losses, with a short batch on one process. Float32, 1e-5."""
    model = small_model()
    expected = pretrain_step(model, frozen_optimizer(model), [make_batch(sum(SIZES))])
    mp.start_processes(worker, (tmp_path,), nprocs=2, start_method="forkserver")
    results, twice, grads = torch.load(tmp_path / "results")
    assert summed(results) == pytest.approx(summed(expected), rel=1e-5)
    assert summed(twice) == pytest.approx(summed(expected), rel=1e-5)
    # A loss that is not finite on one process stops both.
    for rank in range(2):
        assert (tmp_path / f"stopped {rank}").exists()
        assert (tmp_path / f"refused {rank}").exists()
    assert grads.keys() == gradients(model).keys()
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grads[name], grad, rtol=1e-4, atol=1e-6)


def test_attention_is_plain_on_the_cpu_and_gives_the_same(build_model: Build) -> None:
    model = build_model()
    batch = make_batch()
    fused = forward(model, batch)
    ready_to_train(model, torch.device("cpu"))
    assert not any(block.attn.fused_attn for block in [*model.encoder.blocks, *model.decoder.blocks])
    torch.testing.assert_close(forward(model, batch).total, fused.total, rtol=1e-5, atol=1e-6)


def test_biases_norms_and_tokens_are_not_decayed(build_model: Build) -> None:
    model = build_model()
    groups = {group["weight_decay"]: group["params"] for group in build_optimizer(model, lr=1.0).param_groups}
    assert {id(parameter) for parameter in groups[0.0]} == {id(parameter) for parameter in spared(model)}


def spared(model: UniEmoX) -> list[nn.Parameter]:
    """Parameters that decay spares."""
    tokens = ("encoder.cls_token", "decoder.mask_token")
    return [p for name, p in model.named_parameters() if p.requires_grad and (p.ndim == 1 or name in tokens)]
