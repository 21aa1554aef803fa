"""A pre-training run: data, teacher and model, the loop over its steps, and what it leaves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.checkpoints.published import load_start
from uniemox.checkpoints.saving import save_encoder, write_tensors
from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.data.seen import write_seen
from uniemox.io.files import ENCODER, WEIGHTS
from uniemox.io.parallel import usable_cores
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
    check_shared_memory,
    count_workers,
    precision_of,
    ready_to_train,
    setup_device,
    wrap,
)
from uniemox.training.journal import ActivationCount, Callback, Journal, NullCallback, RunPlan, memory_estimate
from uniemox.training.loop import Step, training_steps
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
        with run.steps(callback) as steps:
            for step in steps:
                run.schedule.step_update(step.done)
                batches = [run.batch(views) for views in step.batches]
                weights = None if weights_at is None else weights_at(step.done)
                norms = run.gradient_norms(batches, step.done, weights)
                losses = pretrain_step(
                    run.runner,
                    run.optimizer,
                    batches,
                    teacher=run.teacher,
                    precision=precision_of(config.hardware),
                    max_grad_norm=config.optimizer.max_grad_norm,
                    weights=weights,
                    extra_losses=extra_losses,
                )
                step.report(losses | norms | {"lr": run.lr, "epoch": (step.done + 1) / run.steps_per_epoch})
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
        write_seen(out, data, sources, lambda done: callback.progress("hashing images", done, len(data)))
    wait_for_all()
    teacher = prepare_teacher(opened, config.teacher, config.model, data, out, device, callback)
    model = build_model(config, None if teacher is None else teacher.width, encoder)
    ready_to_train(model, device)
    model.set_grad_checkpointing(config.hardware.grad_checkpointing)
    if config.hardware.compile:
        compile_teacher(teacher)
    return PretrainRun(config, data, out, model, teacher)


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
        self, config: PretrainConfig, data: DataSet, out: Path, model: UniEmoX, teacher: Teacher | None
    ) -> None:
        self.config, self.data, self.out, self.model, self.teacher = config, data, out, model, teacher
        self.device = next(model.parameters()).device
        self.steps_per_epoch = steps_in_epoch(len(data), config.batch_size)
        self.step_count = config.schedule.steps(self.steps_per_epoch)
        settings = config.optimizer
        if config.sharded and world_size() > 1:
            shard(model, self.device)
        self.optimizer = build_optimizer(
            model,
            lr=settings.lr(config.batch_size),
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            layer_decay=config.layer_decay,
        )
        self.schedule = build_schedule(self.optimizer, config.schedule, self.steps_per_epoch)
        length = model.encoder.patch_embed.num_patches
        self.views = ViewDataset(data.samples, MaskedViews(TrainViews(config.view, config.seed), length))
        self.checkpoints = Checkpoints(out, config.save.keep, config.save.keep_every)
        saved = self.checkpoints.found()
        self.start = self.checkpoints.load(saved[-1], model, self.optimizer).step if saved else 0
        self.runner = wrap(model, self.device, compiled=config.hardware.compile)

    @property
    def lr(self) -> float:
        """The learning rate of this step."""
        return self.optimizer.param_groups[0]["lr"]

    @contextmanager
    def steps(self, callback: Callback) -> Iterator[Iterator[Step[ViewBatch]]]:
        """The steps that are still to be done, journalled."""
        config, plan = self.config, self.plan()
        callback.start(plan)
        order = RunOrder(
            len(self.data),
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            seed=config.seed,
            start=self.start,
            steps=self.step_count,
            rank=rank(),
            processes=world_size(),
        )
        with Journal(self.out, self.start, is_written=rank() == 0, tracker=config.save.tracker) as journal:
            steps = training_steps(
                build_loader(self.views, order, count_workers(config.hardware, self.device)),
                plan=plan,
                save=lambda done: self.save(done, journal),
                wait_until_saved=self.checkpoints.wait,
                save_every=config.save.due,
                broken=BrokenCount(config.max_unreadable),
                journal=journal,
                callback=callback,
            )
            with closing(steps):
                yield steps

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
            write_tensors(self.out / WEIGHTS, weights)
            save_encoder(model.encoder, self.out / ENCODER)
            if not self.config.save.keep_finished:
                self.checkpoints.finish()
        wait_for_all()

    def batch(self, views: ViewBatch) -> PretrainBatch:
        """Views with texts, keys and masks."""
        return make_batch(views, with_emotion=self.config.teacher.with_emotion)

    def save(self, done: int, journal: Journal) -> None:
        """A checkpoint, and an image of what is reconstructed."""
        if rank() == 0 or is_sharded(self.model):
            self.checkpoints.save(Progress(done, None, {}), self.model, self.optimizer)
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

    def plan(self) -> RunPlan:
        """Return the cost of the run; memory is measured on two grey images."""
        config, size = self.config, self.config.view.size
        pixels = torch.zeros(2, 3, size, size, dtype=torch.uint8)
        features = None if self.teacher is None else torch.randn(2, self.teacher.width)
        batch = PretrainBatch(scene=pixels, person=pixels, image_features=features, text_features=features)
        with torch.compiler.set_stance("force_eager"), ActivationCount(self.model) as kept:
            forward(self.model, batch, precision=precision_of(config.hardware))
        images = config.batch_size / config.accumulation / world_size()  # of a batch of one process
        workers = count_workers(config.hardware, self.device)
        check_shared_memory(workers, int(images * pixels[0].numel() * 2))
        return RunPlan(
            what="pre-training",
            steps=self.step_count,
            done=self.start,
            batch_size=config.batch_size,
            accumulation=config.accumulation,
            samples=len(self.data),
            parameters=sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad),
            memory_bytes=memory_estimate(self.model, int(kept.bytes * images / 2)),
            device=str(self.device),
            processes=world_size(),
            disk_bytes=self.checkpoints.need_space(self.model, steps=self.step_count),
            is_sharded=is_sharded(self.model),
            workers=workers,
            stops_on_divergence=config.stop_on_divergence,
            cores=usable_cores(),
        )
