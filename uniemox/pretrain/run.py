"""A pre-training run: data, teacher, model, the loop over steps, and the files that it writes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.published import load_start
from uniemox.checkpoints.saving import save_encoder, write_tensors
from uniemox.checkpoints.start_decoder import DecoderReport, take_decoder
from uniemox.data.order import steps_in_epoch
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import Broken, DataSet
from uniemox.data.seen import write_seen
from uniemox.data.unreadable import UNREADABLE_FILE, lost_by_class, read_unreadable
from uniemox.io.run_files import ENCODER, WEIGHTS
from uniemox.losses.config import LossWeights
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.drawing import reconstruction_image
from uniemox.pretrain.step import ExtraLoss, PretrainBatch, forward, loss_gradient_norms, make_batch, pretrain_step
from uniemox.teacher.features import StoredTeacher, store_features
from uniemox.teacher.opening import open_teacher, teacher_width
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.callback import Callback, RunPlan
from uniemox.training.counting import tensor_bytes
from uniemox.training.hardware import precision_of, ready_to_train, setup_device, with_precision, wrap
from uniemox.training.journal import Journal
from uniemox.training.processes import first_process_first, from_first, process_group, rank, wait_for_all, world_size
from uniemox.training.run_folder import TEACHER_FEATURES, add_to_record, begin_run
from uniemox.training.run_notes import load_reports, origin_of_weights, record_start, report_unreadable
from uniemox.training.sharding import copy_to_host, is_sharded, shard
from uniemox.training.state import Checkpoints, ResumePoint, was_finished
from uniemox.training.trainer import Trainer, measure_plan, training_batches
from uniemox.views.loader import BrokenCount, ViewDataset, collate
from uniemox.views.patches import IMAGENET
from uniemox.views.transforms import TrainViews

DECODER = "decoder_start"
"""Field of config.json: origin of the decoder's initial weights."""
MAX_DRAWN_SAMPLES = 8
"""Maximum number of samples in an image of reconstructions."""


def pretrain(
    config: PretrainConfig,
    data: DataSet,
    out: Path,
    *,
    resume: bool = False,
    callback: Callback | None = None,
    weights_at: Callable[[int], LossWeights | None] = lambda done: None,
    extra_losses: Mapping[str, ExtraLoss] = {},
) -> Path:
    """Pre-train on all samples of a data set; under torchrun, call it in every process.

    On the CPU the same settings and data give the same bits, even if the run is killed and resumed; the number of
    processes changes losses by rounding only. After any error the last checkpoint remains.

    Args:
        config: Settings of the run.
        data: Data set, all of whose samples are used.
        out: Folder of the run, a new one, or one to continue if `resume`.
        resume: Continue the run in `out` from its last checkpoint.
        callback: Receives the progress of the run; None: nothing does.
        weights_at: Function from the step, from 0, to weights of the losses; None: those of config.model.losses. A loss
            is only computed if its weight there is above 0.
        extra_losses: Further losses by name, see `pretrain_step`.

    Returns:
        The file of the finished encoder.

    Raises:
        ConfigError: If the settings do not fit the machine, the data or the run in `out`.
        DataError: If more images are unreadable than config.max_unreadable.
        TeacherError: If the teacher can't be opened or has no features for an image.
        CheckpointError: If weights can't be read or written.
        NonFiniteLossError: If a loss or the gradient is not finite.
        DivergedError: If the run diverges and config.stop_on_divergence is on.
        StoppedError: After SIGTERM or Ctrl-C, when all is saved.
    """
    device = setup_device(config.hardware)
    callback = callback or Callback()
    config = with_precision(config, out)
    precision = precision_of(config.hardware)
    # A batch larger than the data set is refused before anything is written.
    steps_in_epoch(len(data), config.batch_size)
    with process_group(device), begin_run(out, "pretrain", config, data, resume=resume):
        if was_finished(out, ENCODER, config.save):
            return out / ENCODER

        model, teacher = open_networks(config, data, out, device, callback)
        broken = _count_unreadable(config, data, out, callback)
        trainer = build_trainer(config, data, out, model, callback)
        plan = plan_run(config, data, trainer, teacher, done=trainer.resume().step)
        runner = wrap(model, device, compiled=config.hardware.compile)
        patches = model.encoder.patch_embed.num_patches
        dataset = ViewDataset(data.samples, TrainViews(config.view, config.seed, patches))
        loader = training_batches(config, dataset, plan, broken)
        save = partial(_save, config, dataset, trainer, teacher)

        with closing(trainer.steps(plan, loader, save)) as steps:
            for step in steps:
                batches = [make_batch(views, with_emotion=config.teacher.with_emotion) for views in step.batches]
                weights = weights_at(step.done)
                norms = _diagnose(config, step.done, model, batches, teacher, weights)
                losses = pretrain_step(
                    runner,
                    trainer.optimizer,
                    batches,
                    teacher=teacher,
                    precision=precision,
                    max_grad_norm=config.optimizer.max_grad_norm,
                    weights=weights,
                    extra_losses=extra_losses,
                )
                lr = trainer.optimizer.param_groups[0]["lr"]
                step.report(losses | norms | {"lr": lr, "epoch": (step.done + 1) / plan.steps_per_epoch})

        _finish(config, trainer, teacher)
        report_unreadable(out, broken.reasons, callback)
    return out / ENCODER


def _diagnose(
    config: PretrainConfig,
    done: int,
    model: UniEmoX,
    batches: Sequence[PretrainBatch],
    teacher: Teacher | None,
    weights: LossWeights | None,
) -> dict[str, float]:
    """Return the first batch's `loss_gradient_norms` if they are due after this number of steps; else {}."""
    if not config.diagnose_every or done % config.diagnose_every:
        return {}
    # Compiled backward passes free their buffers, so they can't run once for each loss.
    with torch.compiler.set_stance("force_eager"):
        return loss_gradient_norms(model, batches[0], teacher, precision_of(config.hardware), weights)


def _count_unreadable(config: PretrainConfig, data: DataSet, out: Path, callback: Callback) -> BrokenCount:
    """Count the images that `write_seen` could not read, and warn of classes that lose many."""
    broken = BrokenCount(config.max_unreadable)
    reasons = from_first(read_unreadable(out / UNREADABLE_FILE) if rank() == 0 else {})
    broken.add([Broken(key, reason) for key, reason in reasons.items()])
    for line in lost_by_class(data.samples, reasons, data.labels, "training"):
        callback.note(line)
    return broken


def open_networks(
    config: PretrainConfig, data: DataSet, out: Path, device: torch.device, callback: Callback
) -> tuple[UniEmoX, Teacher | None]:
    """Build the initial model and open the teacher, on the device; record the training images in the run's folder.

    Raises:
        TeacherError or CheckpointError: If weights are missing; before any long work.
    """
    # The first process may have to download the weights.
    with first_process_first():
        encoder = None if config.encoder.start is None else build_encoder_of(config)
    teacher = prepare_teacher(config, data, out, device, callback)
    if rank() == 0:
        record_start(out, encoder, callback)
        for report in load_reports(encoder):
            if report.mean_std not in (None, IMAGENET):
                callback.note(
                    f"{report.path} was trained on pixels with another mean and deviation than ImageNet's, by which "
                    "pre-training normalises: the first steps adapt the weights"
                )
        sources = [config.encoder.start or "", config.teacher.source if teacher is not None else ""]
        write_seen(out, data, sources, callback.progress, person=config.view.person)
    wait_for_all()
    model, decoder = build_model_and_report(config, None if teacher is None else teacher.width, encoder)
    # A resumed run has the weights of its checkpoint, not the initial ones.
    is_new = not Checkpoints(out, config.save.keep).saved()
    if rank() == 0 and is_new and config.encoder.start is not None:
        callback.note(str(decoder))
        add_to_record(out, DECODER, decoder.as_dict())
    move_and_compile(config, model, teacher, device)
    return model, teacher


def prepare_teacher(
    config: PretrainConfig, data: DataSet, out: Path, device: torch.device, callback: Callback
) -> Teacher | None:
    """Return the teacher for `pretrain_step`; None if no loss needs one. Its features are saved in the run's folder."""
    model = config.model
    settings = config.teacher
    if not model.needs_image_features:
        return None
    teacher = None
    if settings.view == "augmented":
        # The first process may have to download the teacher.
        with first_process_first():
            teacher = open_teacher(settings.source, device)
        if not model.needs_text_features:
            return teacher
    if rank() == 0 and not (out / TEACHER_FEATURES).exists():
        texts = distinct_texts(data.samples, settings.with_emotion) if model.needs_text_features else ()
        store_features(
            teacher or open_teacher(settings.source, device),
            settings.source,
            # A teacher that is open computes image features in every step; only its text features are stored.
            () if teacher else data.samples,
            out / TEACHER_FEATURES,
            with_person=settings.view == "whole_and_person",
            texts=texts,
            hardware=config.hardware,
            on_progress=callback.progress,
        )
    wait_for_all()
    return StoredTeacher(out / TEACHER_FEATURES, teacher)


def build_model(config: PretrainConfig, teacher_width: int | None, encoder: VisionTransformer | None = None) -> UniEmoX:
    """Build the model with initial weights; random weights are drawn by the seed.

    Args:
        config: Settings of the run.
        teacher_width: Number of channels of the teacher's features; None without a teacher.
        encoder: Initial encoder; None: the one that config names.
    """
    model, _ = build_model_and_report(config, teacher_width, encoder)
    return model


def build_model_and_report(
    config: PretrainConfig, teacher_width: int | None, encoder: VisionTransformer | None = None
) -> tuple[UniEmoX, DecoderReport]:
    """Build the model as `build_model`; also return the origin of its decoder's weights."""
    torch.manual_seed(config.seed)
    encoder = encoder or build_encoder_of(config)
    model = UniEmoX(encoder, replace(config.model, teacher_width=teacher_width)).train()
    return model, take_decoder(model, config.encoder.start, is_fresh=config.fresh_decoder)


def build_encoder_of(config: PretrainConfig) -> VisionTransformer:
    """Build the encoder with initial weights: published ones, those of a run, or random ones."""
    size = config.view.size
    if config.encoder.start is None:
        return build_encoder(config.encoder.name, size, **config.encoder.timm_options)
    start = Path(config.encoder.start)
    return load_start(start / ENCODER if start.is_dir() else config.encoder.start, image_size=size)


def move_and_compile(config: PretrainConfig, model: UniEmoX, teacher: Teacher | None, device: torch.device) -> None:
    """Move the model to its device; with hardware.compile, also compile CLIP's image encoder, which runs in a step."""
    ready_to_train(model, device)
    model.set_grad_checkpointing(config.hardware.grad_checkpointing)
    computing = computing_teacher(teacher)
    if config.hardware.compile and isinstance(computing, ClipTeacher):
        computing.model.visual.compile()


def computing_teacher(teacher: Teacher | None) -> Teacher | None:
    """Return the teacher that computes image features in every step; None if they are stored."""
    if isinstance(teacher, StoredTeacher):
        return teacher.of_images
    return teacher


def build_trainer(config: PretrainConfig, data: DataSet, out: Path, model: UniEmoX, callback: Callback) -> Trainer:
    """Shard a model, on its device, over the processes if set, and build its optimizer and schedule."""
    if config.sharded and world_size() > 1:
        shard(model, next(model.parameters()).device)
    return Trainer.of(config, out, model, callback, samples=len(data))


def plan_run(
    config: PretrainConfig, data: DataSet, trainer: Trainer, teacher: Teacher | None, done: int = 0
) -> RunPlan:
    """Return the plan of a run after a number of steps, including the memory of a teacher that runs in it."""

    def forward_pixels(pixels: Tensor) -> None:
        features = None if teacher is None else torch.randn(len(pixels), teacher.width)
        batch = PretrainBatch(scene=pixels, person=pixels, image_features=features, text_features=features)
        forward(trainer.model, batch, precision=precision_of(config.hardware))

    plan = measure_plan(
        config,
        trainer,
        forward_pixels,
        samples=len(data),
        title="pre-training",
        done=done,
        stops_on_divergence=config.stop_on_divergence,
    )
    computing = computing_teacher(teacher)
    network = computing if isinstance(computing, nn.Module) else getattr(computing, "model", None)
    # Stored features need no network; an ONNX file's memory is not torch's.
    if not isinstance(network, nn.Module):
        return plan
    return replace(plan, memory_bytes=plan.memory_bytes + tensor_bytes(network))


def _save(
    config: PretrainConfig, views: ViewDataset, trainer: Trainer, teacher: Teacher | None, done: int, journal: Journal
) -> None:
    """Save a checkpoint and an image of reconstructions."""
    trainer.checkpoints.save(ResumePoint(done), trainer.model, trainer.optimizer)
    view_batch = collate([views[0, i] for i in range(min(MAX_DRAWN_SAMPLES, len(views)))])
    if view_batch.samples:
        batch = make_batch(view_batch, with_emotion=config.teacher.with_emotion)
        # All processes run this, because the model gathers their texts.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            output = forward(trainer.model, batch, teacher=teacher)
        if output.scene_pred is not None or output.person_pred is not None:
            patch_size = trainer.model.patch_size
            norm_pix = config.model.norm_pix
            image = reconstruction_image(output, batch, patch_size=patch_size, norm_pix=norm_pix)
            journal.image(done, "reconstruction", image)
    wait_for_all()


def _finish(config: PretrainConfig, trainer: Trainer, teacher: Teacher | None) -> None:
    """Write the whole model and the encoder; delete checkpoints that are not to be kept."""
    weights = copy_to_host(trainer.model.state_dict())
    if rank() == 0:
        model = trainer.model
        if is_sharded(model):
            model = build_model(config, None if teacher is None else teacher.width)
            model.load_state_dict(weights)
        write_tensors(trainer.out / WEIGHTS, weights)
        save_encoder(model.encoder, trainer.out / ENCODER)
        if not config.save.keep_finished:
            trainer.checkpoints.finish()
    wait_for_all()


@dataclass(frozen=True, slots=True)
class PretrainDryRun:
    """Initial state of a pre-training run."""

    images: int
    steps_per_epoch: int
    start: str
    """Origin of the initial weights."""
    teacher_width: int | None
    """Channels of the teacher's image features; None: no teacher."""


def dry_run(config: PretrainConfig, data: DataSet) -> PretrainDryRun:
    """Read settings, data and initial weights as a run does; train and write nothing.

    The model is built on torch's meta device.

    Args:
        config: Settings of the run.
        data: Its training images.

    Raises:
        UniemoxError: For whatever would stop the run before its first step.
    """
    steps = steps_in_epoch(len(data), config.batch_size)
    channels = teacher_width(config.teacher.source) if config.model.needs_image_features else None
    with torch.device("meta"):
        encoder = build_encoder_of(config)
        _, decoder = build_model_and_report(config, channels, encoder)
    start = config.encoder.start
    origin = "random weights" if start is None else f"{origin_of_weights(encoder, start)}, {decoder}"
    return PretrainDryRun(len(data), steps, origin, channels)
