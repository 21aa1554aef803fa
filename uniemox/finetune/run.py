"""A fine-tuning run, from a pre-trained encoder to `model.safetensors` and `model.onnx`."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3

from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.checkpoints.saving import write_tensors
from uniemox.classifier_info import ClassifierInfo
from uniemox.data.order import steps_in_epoch
from uniemox.data.overlaps import Overlaps, read_overlaps, write_overlaps
from uniemox.data.sample import DataSet
from uniemox.data.seen import EXCLUDE_COPIES, SEEN, write_seen
from uniemox.evaluate.calibration import MIN_SAMPLES
from uniemox.export.onnx import export_classifier
from uniemox.finetune.augmentation import AugmentedViews
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.distillation import ask_teacher, open_unlabelled
from uniemox.finetune.fit_methods import fit_after_encoder, fit_method
from uniemox.finetune.fitted_parts import adjust_logits, fit_distance, prepare_network
from uniemox.finetune.network import checkpoint_activations, network_of
from uniemox.finetune.overlaps import find_overlaps, sources_of
from uniemox.finetune.parts import Parts, note_without_target, split_for_training
from uniemox.finetune.run_state import FinetuneRun
from uniemox.finetune.step import finetune_step, seed_step
from uniemox.io.run_files import ENCODER, ONNX, WEIGHTS
from uniemox.io.weight_names import Init
from uniemox.model.lora import merge_adapters
from uniemox.plurals import counted
from uniemox.predict.confidence import COVERAGE, flag_note, set_note
from uniemox.training.callback import Callback
from uniemox.training.hardware import precision_of, ready_to_train, setup_device, with_precision, wrap
from uniemox.training.journal import Journal
from uniemox.training.optimization import freeze_layers
from uniemox.training.processes import first_process_first, from_first, process_group, rank, wait_for_all
from uniemox.training.run_folder import begin_run
from uniemox.training.run_notes import origin_of_weights, record_start, report_unreadable
from uniemox.training.state import Checkpoints, ResumePoint, was_finished
from uniemox.training.trainer import Trainer, measure_plan, training_batches
from uniemox.views.loader import ViewDataset

# With fewer images, two models that disagree on a quarter of them may differ by ten points by chance.
FEW_TEST_IMAGES = 100


def finetune(
    config: FinetuneConfig, data: DataSet, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> ClassifierInfo:
    """Fine-tune on a data set; under torchrun, call it in every process.

    On the CPU the same settings, data and number of processes give the same bits, even if the run is killed and
    resumed. After any error the last checkpoint remains.

    Args:
        config: Settings of the run.
        data: Labelled data set.
        out: Folder of the run, a new one, or one to continue if `resume`.
        resume: Continue the run in `out` from its last checkpoint.
        callback: Receives the progress of the run; None: nothing does.

    Returns:
        The finished classifier's metadata.

    Raises:
        ConfigError: If the settings do not fit the machine, the data or the run in `out`.
        DataError: If no image is left to train on or to hold out, or if too many can't be read.
        CheckpointError: If weights can't be read or written.
        NonFiniteLossError: If a loss or the gradient is not finite.
        StoppedError: After SIGTERM or Ctrl-C, when all is saved.
    """
    device = setup_device(config.hardware)
    callback = callback or Callback()
    config = with_precision(config.resolved(), out)
    check_parts(config, data)
    with process_group(device), begin_run(out, "finetune", config, data, resume=resume):
        if was_finished(out, ONNX, config.save):
            _, info = load_classifier(out / WEIGHTS, allow=config.own_packages)
            return info

        run = _open_run(config, data, out, device, callback)
        prepare_network(run, is_new=not Checkpoints(out, config.save.keep).saved())
        if config.trains_in_steps:
            _train(run, out)
        elif chosen := fit_method(run, out):
            with Journal(out, 0) as journal:
                journal.write(chosen.step, {"kept_lr": chosen.lr})
        info = _finish(run, out) if rank() == 0 else run.describe()
        wait_for_all()
        report_unreadable(out, run.broken.reasons, callback)
    return info


def check_parts(config: FinetuneConfig, data: DataSet) -> Parts:
    """Return the samples of a run, before anything is written.

    Raises:
        ConfigError: If they do not fill a batch.
        DataError: If no image is left to train on or to hold out.
    """
    parts = split_for_training(data, config, None)
    if config.trains_in_steps and not config.distillation.data:
        steps_in_epoch(len(parts.train), config.batch_size)
    return parts


def dry_run(config: FinetuneConfig, data: DataSet, parts: Parts) -> str:
    """Read initial weights and build the network as a run does, on torch's meta device; train and write nothing.

    Args:
        config: Settings of the run, resolved.
        data: Its labelled images.
        parts: These images from `check_parts`.

    Returns:
        Description of the origin of the encoder's initial weights.

    Raises:
        UniemoxError: For whatever would stop the run before its first step.
    """
    with torch.device("meta"):
        network = network_of(config, data, parts.train)
    return origin_of_weights(network.classifier.encoder, config.init)


def _open_run(
    config: FinetuneConfig, data: DataSet, out: Path, device: torch.device, callback: Callback
) -> FinetuneRun:
    """Build the initial network, open the teacher, and record the training images in the run's folder."""
    overlaps = from_first(_overlaps_of(config, data, out, callback) if rank() == 0 else Overlaps())
    data = replace(data, samples=overlaps.join(data.samples))
    seen_keys = {*overlaps.seen_held_out, *overlaps.held_out_copies}
    parts = split_for_training(data, config, out if rank() == 0 else None).without_seen(seen_keys)
    if rank() == 0 and (note := note_without_target(data, config)):
        callback.note(note)
    torch.manual_seed(config.seed)
    # The first process may have to download the initial weights.
    with first_process_first():
        network = network_of(config, data, parts.train)
    run = FinetuneRun(config=config, data=data, network=network, parts=parts, callback=callback)
    reasons: dict[str, str] = {}
    unlabelled = [
        sample for sample in open_unlabelled(config.distillation) if sample.key not in overlaps.held_out_unlabelled
    ]
    if rank() == 0:
        if not Init.parse(config.init).from_scratch:
            record_start(out, network.classifier.encoder, callback)
        training_data = replace(data, samples=[*parts.samples, *unlabelled])
        reasons = write_seen(out, training_data, sources_of(config), callback.progress, person=config.view.person)
    run.leave_out(from_first(reasons))
    if config.distillation.teacher:
        run.answers = ask_teacher(config.distillation, parts.train, unlabelled, data.labels, out, callback.progress)
    ready_to_train(network.classifier, device)
    freeze_layers(network.classifier.encoder, config.network.frozen_layers)
    if config.hardware.grad_checkpointing:
        checkpoint_activations(network.classifier.encoder)
    return run


def _overlaps_of(config: FinetuneConfig, data: DataSet, out: Path, callback: Callback) -> Overlaps:
    """Return the overlaps of a run's images, and name the test images on which it can't be evaluated.

    They are looked up before the first step. Later they are read, so that a run resumes with the same parts.
    """
    if (out / SEEN).exists():
        overlaps = read_overlaps(out)
    else:
        overlaps = find_overlaps(data, config, callback.progress)
        write_overlaps(out, overlaps)
        is_drawn = all(sample.split is None for sample in data.samples)
        test_images = overlaps.scored_images or 0
        if is_drawn and 0 < test_images < FEW_TEST_IMAGES:
            images = counted(test_images, "image")
            callback.note(
                f"this run leaves {images} for a test, on which only large differences between models are seen; for "
                "smaller ones, first draw a larger part (uniemox data split DATA splits.json --ratio 60/10/30), and "
                "train with --splits splits.json"
            )
    if overlaps.contradictory:
        first, second = next(iter(overlaps.contradictory.items()))
        callback.note(
            f"{len(overlaps.contradictory)} images are exact copies with different labels, such as {first} and "
            f"{second}: each is trained or scored with its own; uniemox data check lists them"
        )
    if copies := overlaps.held_out_copies:
        callback.note(
            f"{counted(len(copies), 'held-out image is a copy', 'held-out images are copies')} of training images, "
            f"such as {copies[0]}: the chosen epoch may be too late, and only the others calibrate if they are enough; "
            f"to leave the copies out: {EXCLUDE_COPIES}"
        )
    scored = f"of the {overlaps.scored_images} images of split {overlaps.scored_split}"
    if copies := overlaps.scored_copies:
        callback.note(
            f"{len(copies)} {scored}, such as {copies[0]}, are copies of images that this run reads: uniemox evaluate "
            f"will refuse them; train without these images ({EXCLUDE_COPIES}), or take other test images"
        )
    for name in sources_of(config):
        if keys := overlaps.seen_scored.get(name):
            callback.note(
                f"{name} was trained on {len(keys)} {scored}, such as {keys[0]}: uniemox evaluate will refuse them; "
                "take other test images, or other initial weights (--init)"
            )
    return overlaps


def _train(run: FinetuneRun, out: Path) -> None:
    """Train the network in steps; the first process then loads the weights of the chosen epoch."""
    config = run.config
    model = run.model
    samples = [*run.parts.train, *(run.answers.unlabelled if run.answers else ())]
    ema: Any = None if config.ema_decay is None else ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    trainer = Trainer.of(
        config,
        out,
        model,
        run.callback,
        samples=len(samples),
        encoder_lr_scale=config.lora.lr_scale if config.fit == "lora" else 1.0,
        head_lr_scale=config.head_lr_scale,
        every_epoch=True,
    )
    point = trainer.resume()
    if ema is not None and point.more:
        ema.load_state_dict(point.more["ema"])
    if point.step == 0 and config.probe_first:
        fit_after_encoder(run)
        if ema is not None:
            ema.set(model)
    runner = wrap(model, run.device, compiled=config.hardware.compile)
    plan = measure_plan(
        config,
        trainer,
        run.forward_pixels,
        samples=len(samples),
        has_ema=ema is not None,
        title="fine-tuning",
        done=point.step,
    )
    augmented = AugmentedViews(config.view, config.seed, config.augment.randaugment, config.augment.altered)
    loader = training_batches(config, ViewDataset(samples, augmented), plan, run.broken)
    save = partial(_save, run, trainer, ema, plan.steps_per_epoch)
    objective = run.objective

    with closing(trainer.steps(plan, loader, save)) as steps:
        for step in steps:
            seed_step(config.seed, step.done)
            batches = [run.batch(views, progress=step.done / plan.steps) for views in step.batches]
            losses = finetune_step(
                runner,
                trainer.optimizer,
                batches,
                objective=objective,
                augment=config.augment,
                stats=run.network.stats,
                precision=precision_of(config.hardware),
                max_grad_norm=config.optimizer.max_grad_norm,
            )
            if ema is not None:
                ema.update(model, step=step.done)
            lr = trainer.optimizer.param_groups[-1]["lr"]
            step.report(losses | {"lr": lr, "epoch": (step.done + 1) / plan.steps_per_epoch})

    model.train()
    if rank() == 0:
        _choose(run, trainer, ema)


def _save(run: FinetuneRun, trainer: Trainer, ema: Any, steps_per_epoch: int, done: int, journal: Journal) -> None:
    """Save a checkpoint; at the end of an epoch with its score on the selection samples."""
    if rank() == 0:
        score = None
        if done % steps_per_epoch == 0:
            score = run.score(run.model if ema is None else ema.module)
            journal.write(done, {"score": score})
        more = {} if ema is None else {"ema": ema.state_dict()}
        trainer.checkpoints.save(ResumePoint(done, score, more), run.model, trainer.optimizer)
    wait_for_all()


def _choose(run: FinetuneRun, trainer: Trainer, ema: Any) -> None:
    """Load the weights of the chosen epoch into the model."""
    best = None if run.config.select == "last" else trainer.checkpoints.best()
    point = trainer.checkpoints.load(best or trainer.checkpoints.saved()[-1], run.model)
    if ema is not None:
        ema.load_state_dict(point.more["ema"])
        run.model.load_state_dict(ema.module.state_dict())


def _few_images_note(info: ClassifierInfo, held_out: int) -> str | None:
    """Return a sentence about a calibration with few held-out images; None if there are enough."""
    if held_out >= MIN_SAMPLES:
        return None
    images = f"only {counted(held_out, 'held-out image')}"
    if info.task == "multilabel":
        return f"{images}: probabilities and thresholds are rough; hold out more"
    if info.temperature is None:
        return None
    result = "the temperature is rough"
    if info.temperature == 1:
        result = f"too few to make the model surer, so the temperature stays 1 ({MIN_SAMPLES} are needed)"
    return f"{images}: {result}; calibrate on more images (uniemox calibrate)"


def _finish(run: FinetuneRun, out: Path) -> ClassifierInfo:
    """Fit the temperature and write all files."""
    merge_adapters(run.model.encoder)
    adjust_logits(run)
    fit_distance(run)
    info = run.calibrate()
    few_images = _few_images_note(info, len(run.parts.calibration))
    for note in (few_images, set_note(info, COVERAGE), flag_note(info)):
        if note:
            run.callback.note(note)
    save_classifier(run.model, info, out / WEIGHTS)
    write_tensors(out / ENCODER, run.model.encoder.state_dict())
    export_classifier(run.model, info, out / ONNX)
    if not run.config.save.keep_finished:
        Checkpoints(out, run.config.save.keep, run.config.save.keep_every).finish()
    return info
