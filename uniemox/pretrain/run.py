"""A pre-training run: data, teacher and model, the loop over its steps, and what it leaves."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.checkpoints.published import load_start
from uniemox.checkpoints.saving import save_encoder, write_tensors
from uniemox.data.order import steps_in_epoch
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.data.seen import write_seen
from uniemox.io.files import ENCODER, WEIGHTS
from uniemox.losses.config import LossWeights
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import ModelOutput, UniEmoX
from uniemox.pretrain.config import PretrainConfig, TeacherConfig
from uniemox.pretrain.step import (
    ExtraLoss,
    MaskedViews,
    PretrainBatch,
    forward,
    loss_gradient_norms,
    make_batch,
    pretrain_step,
)
from uniemox.teacher.features import StoredTeacher, TextCachedTeacher, store_features
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.hardware import (
    precision_of,
    ready_to_train,
    setup_device,
    wrap,
)
from uniemox.training.journal import Callback, Journal, NullCallback, RunPlan
from uniemox.training.loop import Step
from uniemox.training.optimization import build_optimizer, build_schedule
from uniemox.training.processes import (
    first_process_first,
    is_sharded,
    process_group,
    rank,
    shard,
    wait_for_all,
    whole,
    world_size,
)
from uniemox.training.run_folder import begin_run
from uniemox.training.state import Checkpoints, Progress, was_finished
from uniemox.training.trainer import Trainer, measure_plan, run_order
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader, collate
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, patchify, unpatchify
from uniemox.views.transforms import TrainViews

GAP_PX = 2


def reconstruction_image(output: ModelOutput, batch: PretrainBatch, *, patch_size: int, norm_pix: bool) -> Image.Image:
    """Three rows for each stream that is reconstructed: the visible patches, the reconstruction, the image.

    With norm_pix the model predicts standardised patches; they are shown in the true patch's mean and deviation.
    """
    rows: list[Tensor] = []
    for pred, mask, pixels in (
        (output.scene_pred, output.scene_mask, batch.scene),
        (output.person_pred, output.person_mask, batch.person),
    ):
        if pred is None or mask is None or pixels is None:
            continue
        truth = pixels.float() / 255  # (N, 3, H, W)
        grid = (truth.shape[2] // patch_size, truth.shape[3] // patch_size)
        hidden = unpatchify(mask.hidden[..., None].expand_as(pred).float(), patch_size, grid)  # (N, 3, H, W)
        made = _to_pixels(pred.float(), truth, patch_size, grid, norm_pix)
        rows += [truth * (1 - hidden) + 0.5 * hidden, made * hidden + truth * (1 - hidden), truth]
    return _sheet(rows)


def _to_pixels(pred: Tensor, truth: Tensor, patch_size: int, grid: tuple[int, int], norm_pix: bool) -> Tensor:
    """Predicted patches (N, L, P) as pixels (N, 3, H, W) in [0, 1]."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    if norm_pix:
        patches = patchify((truth - mean) / std, patch_size)  # (N, L, P)
        variance, middle = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
        pred = pred * (variance + 1e-6).sqrt() + middle
    return (unpatchify(pred, patch_size, grid) * std + mean).clamp(0, 1)


def _sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of images (N, 3, H, W) in [0, 1] as one image, white between them."""
    count, _, height, width = rows[0].shape
    sheet = torch.ones(3, len(rows) * (height + GAP_PX) - GAP_PX, count * (width + GAP_PX) - GAP_PX)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = i * (height + GAP_PX), j * (width + GAP_PX)
            sheet[:, y : y + height, x : x + width] = image
    return Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy())


FEATURES, TEXTS = "teacher_features.npz", "text_features"


def open_needed_teacher(config: TeacherConfig, model: ModelConfig, out: Path, device: torch.device) -> Teacher | None:
    """The teacher before it is asked about any image; None if no loss needs one, or where its answers are stored.

    Raises TeacherError if it can't be had.
    """
    if not model.needs_image_features or (config.view != "augmented" and (rank() > 0 or (out / FEATURES).exists())):
        return None
    return open_teacher(config.source, device)


def prepare_teacher(
    teacher: Teacher | None,
    config: TeacherConfig,
    model: ModelConfig,
    data: DataSet,
    out: Path,
    device: torch.device,
    callback: Callback,
) -> Teacher | None:
    """The teacher as the step asks it; None if no loss needs one. What it was asked for is kept in the run's folder.

    teacher: of `open_needed_teacher`. Raises TeacherError if it lacks something.
    """
    if not model.needs_image_features:
        return None
    if config.view != "augmented":
        if teacher is not None:
            store_features(
                teacher,
                config.source,
                data,
                out / FEATURES,
                with_person=config.view == "whole_and_person",
                texts=distinct_texts(data.samples, config.with_emotion) if model.needs_text_features else (),
                device=device,
                on_progress=lambda done: callback.progress("asking the teacher about images", done, len(data)),
            )
        wait_for_all()
        return StoredTeacher(out / FEATURES)
    assert teacher is not None
    return TextCachedTeacher(teacher, out / TEXTS) if model.needs_text_features else teacher


def compile_teacher(teacher: Teacher | None) -> None:
    """Let the image side of CLIP, which runs in every step, be compiled when it is first called."""
    teacher = teacher.teacher if isinstance(teacher, TextCachedTeacher) else teacher
    if isinstance(teacher, ClipTeacher):
        teacher.model.visual.compile()


PICTURED = 8  # samples in a reconstruction image


def pretrain(
    config: PretrainConfig,
    data: DataSet,
    out: Path,
    *,
    resume: bool = False,
    callback: Callback | None = None,
    weights_at: Callable[[int], LossWeights] | None = None,
    extra_losses: Mapping[str, ExtraLoss] = {},
) -> Path:
    """Pre-train on all samples of a data set; under torchrun every process calls it alike.

    out: the run's folder, a new one, or one to continue if `resume`.  Returns the file of the finished encoder.
    weights_at: weights of the losses by step, from 0; None: those of config.model.losses at every step. A loss exists
    if its weight there is above 0.  extra_losses: further losses by name, see `pretrain_step`.
    The same settings and data give the same bits on the CPU, however often the run is killed and resumed; the number
    of processes changes losses by rounding only.
    Raises ConfigError, DataError, TeacherError, CheckpointError, NonFiniteLossError; StoppedError after SIGTERM or
    Ctrl-C. Whatever it raises, the last checkpoint stays.
    """
    device, callback = setup_device(config.hardware), callback or NullCallback()
    config = replace(config, hardware=replace(config.hardware, precision=precision_of(config.hardware)))
    with process_group(device):
        run = _open_run(config, data, out, device, callback, resume=resume)
        if run is None:
            return out / ENCODER
        progress = run.trainer.resume()
        runner = wrap(run.model, device, compiled=config.hardware.compile)
        steps_per_epoch = steps_in_epoch(len(data), config.batch_size)
        with closing(run.steps(run.plan(0 if progress is None else progress.step))) as steps:
            for step in steps:
                batches = [run.batch(views) for views in step.batches]
                weights = None if weights_at is None else weights_at(step.done)
                norms = run.gradient_norms(batches, step.done, weights)
                losses = pretrain_step(
                    runner,
                    run.trainer.optimizer,
                    batches,
                    teacher=run.teacher,
                    precision=precision_of(config.hardware),
                    max_grad_norm=config.optimizer.max_grad_norm,
                    weights=weights,
                    extra_losses=extra_losses,
                )
                lr = run.trainer.optimizer.param_groups[0]["lr"]
                step.report(losses | norms | {"lr": lr, "epoch": (step.done + 1) / steps_per_epoch})
        run.finish()
    return out / ENCODER


def _open_run(
    config: PretrainConfig, data: DataSet, out: Path, device: torch.device, callback: Callback, *, resume: bool
) -> "PretrainRun | None":
    """Begin or continue a run: its folder, teacher and model. None if it is finished."""
    steps_in_epoch(len(data), config.batch_size)  # raises before anything is written
    if rank() == 0:
        begin_run(out, "pretrain", config, data, resume=resume)
    wait_for_all()
    if was_finished(out, ENCODER, config.save):
        return None
    with first_process_first():  # all that may have to be downloaded, before hours of anything else
        opened = open_needed_teacher(config.teacher, config.model, out, device)
        encoder = None if config.encoder.start is None else build_encoder_of(config)
    if rank() == 0:
        sources = [config.encoder.start or "", config.teacher.source if config.model.needs_image_features else ""]
        write_seen(out, data, sources, lambda what, done, _: callback.progress(what, done, len(data)))
    wait_for_all()
    teacher = prepare_teacher(opened, config.teacher, config.model, data, out, device, callback)
    model = build_model(config, None if teacher is None else teacher.width, encoder)
    ready_to_train(model, device)
    model.set_grad_checkpointing(config.hardware.grad_checkpointing)
    if config.hardware.compile:
        compile_teacher(teacher)
    return PretrainRun(config, data, model, teacher, build_trainer(config, data, out, model, callback))


def build_trainer(config: PretrainConfig, data: DataSet, out: Path, model: UniEmoX, callback: Callback) -> Trainer:
    """Divide a model over the processes if asked to, and build its optimizer and schedule.  model: on its device."""
    if config.sharded and world_size() > 1:
        shard(model, next(model.parameters()).device)
    optimizer = build_optimizer(
        model,
        lr=config.optimizer.lr(config.batch_size),
        weight_decay=config.optimizer.weight_decay,
        betas=config.optimizer.betas,
        layer_decay=config.layer_decay,
    )
    schedule = build_schedule(optimizer, config.schedule, steps_in_epoch(len(data), config.batch_size))
    return Trainer(
        out=out,
        model=model,
        optimizer=optimizer,
        checkpoints=Checkpoints(out, config.save.keep, config.save.keep_every),
        set_lr=schedule.step_update,
        broken=BrokenCount(config.max_unreadable),
        callback=callback,
        save_every=config.save.due,
        tracker=config.save.tracker,
    )


def build_model(config: PretrainConfig, teacher_width: int | None, encoder: VisionTransformer | None = None) -> UniEmoX:
    """The model at its start, its random weights drawn by the seed.

    teacher_width: channels of the teacher's features; None without a teacher.  encoder: the start, if it is open.
    """
    torch.manual_seed(config.seed)
    encoder = encoder or build_encoder_of(config)
    return UniEmoX(encoder, replace(config.model, teacher_width=teacher_width)).train()


def build_encoder_of(config: PretrainConfig) -> VisionTransformer:
    """The encoder at its start: published weights, those of a run, or random ones."""
    size = config.view.size
    if config.encoder.start is None:
        return build_encoder(config.encoder.name, size, **config.encoder.timm_options)
    start = Path(config.encoder.start)
    return load_start(start / ENCODER if start.is_dir() else config.encoder.start, image_size=size)


class PretrainRun:
    """State that the steps of a run share. model: on its device.  teacher: of `prepare_teacher`."""

    def __init__(
        self,
        config: PretrainConfig,
        data: DataSet,
        model: UniEmoX,
        teacher: Teacher | None,
        trainer: Trainer,
    ) -> None:
        self.config, self.data, self.model, self.teacher, self.trainer = config, data, model, teacher, trainer
        length = model.encoder.patch_embed.num_patches
        self.views = ViewDataset(data.samples, MaskedViews(TrainViews(config.view, config.seed), length))

    def plan(self, done: int) -> RunPlan:
        """Return the cost of the run after a number of steps; memory is measured on two grey images."""
        config = self.config
        steps = config.schedule.steps(steps_in_epoch(len(self.data), config.batch_size))
        return measure_plan(
            *("pre-training", config, self.trainer, self._probe),
            samples=len(self.data),
            done=done,
            disk_bytes=self.trainer.checkpoints.need_space(self.model, steps=steps),
            stops_on_divergence=config.stop_on_divergence,
        )

    def steps(self, plan: RunPlan) -> Generator[Step[ViewBatch]]:
        """Yield the steps that a plan has left. Close it (contextlib.closing)."""
        loader = build_loader(self.views, run_order(self.config, plan), plan.workers)
        return self.trainer.steps(plan, loader, self.save)

    def _probe(self, pixels: Tensor) -> None:
        features = None if self.teacher is None else torch.randn(2, self.teacher.width)
        batch = PretrainBatch(scene=pixels, person=pixels, image_features=features, text_features=features)
        forward(self.model, batch, precision=precision_of(self.config.hardware))

    def gradient_norms(
        self, batches: Sequence[PretrainBatch], done: int, weights: LossWeights | None
    ) -> dict[str, float]:
        """Norm of each loss's gradient at the encoder, in the steps that config.diagnose_every asks for."""
        if not self.config.diagnose_every or done % self.config.diagnose_every:
            return {}
        precision = precision_of(self.config.hardware)
        return loss_gradient_norms(self.model, batches[0], teacher=self.teacher, precision=precision, weights=weights)

    def finish(self) -> None:
        """Write the whole model and the encoder; remove checkpoints that are not to be kept."""
        weights = whole(self.model.state_dict())
        if rank() == 0:
            model = self.model
            if is_sharded(model):
                model = build_model(self.config, None if self.teacher is None else self.teacher.width)
                model.load_state_dict(weights)
            write_tensors(self.trainer.out / WEIGHTS, weights)
            save_encoder(model.encoder, self.trainer.out / ENCODER)
            if not self.config.save.keep_finished:
                self.trainer.checkpoints.finish()
        wait_for_all()

    def batch(self, views: ViewBatch) -> PretrainBatch:
        """Views with texts, keys and masks."""
        return make_batch(views, with_emotion=self.config.teacher.with_emotion)

    def save(self, done: int, journal: Journal) -> None:
        """A checkpoint, and an image of what is reconstructed."""
        if rank() == 0 or is_sharded(self.model):
            self.trainer.checkpoints.save(Progress(done, None, {}), self.model, self.trainer.optimizer)
        shown = collate([self.views[0, i] for i in range(min(PICTURED, len(self.data)))])
        if shown.samples:
            batch = self.batch(shown)
            with (
                torch.no_grad(),
                torch.compiler.set_stance("force_eager"),
            ):  # on all processes alike, because they gather texts
                output = forward(self.model, batch, teacher=self.teacher)
            if self.model.decoder is not None:
                norm_pix = self.config.model.norm_pix
                image = reconstruction_image(output, batch, patch_size=self.model.patch_size, norm_pix=norm_pix)
                journal.image(done, "reconstruction", image)
        wait_for_all()
