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
from uniemox.data.sample import DataSet
from uniemox.data.seen import write_seen
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.fitting import adjust_logits, fit_after_encoder, fit_distance, fit_method, prepare_network
from uniemox.finetune.network import checkpoint_activations, network_of
from uniemox.finetune.samples import FinetuneRun, split_for_training
from uniemox.finetune.step import AugmentedViews, ask_teacher, finetune_step, open_unlabelled, seed_step
from uniemox.io.files import ENCODER, ONNX, WEIGHTS
from uniemox.io.weight_names import Init
from uniemox.training.hardware import precision_of, ready_to_train, setup_device, with_precision, wrap
from uniemox.training.journal import Callback, Journal
from uniemox.training.optimization import freeze_layers
from uniemox.training.processes import first_process_first, from_first, process_group, rank, wait_for_all
from uniemox.training.run_folder import begin_run
from uniemox.training.run_notes import record_start, report_unreadable
from uniemox.training.state import Checkpoints, ResumePoint, was_finished
from uniemox.training.trainer import Trainer, load_batches, measure_plan
from uniemox.views.loader import ViewDataset


def finetune(
    config: FinetuneConfig, data: DataSet, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> ClassifierInfo:
    """Fine-tune on a data set; under torchrun, call it in every process.

    On the CPU the same settings, data and number of processes give the same bits, even if the run is killed and
    resumed.
    Raises ConfigError, DataError, CheckpointError, NonFiniteLossError; StoppedError after SIGTERM or Ctrl-C. After any
    error the last checkpoint remains.

    Args:
        out: Folder of the run, a new one, or one to continue if `resume`.

    Returns:
        The finished classifier's metadata.
    """
    device = setup_device(config.hardware)
    callback = callback or Callback()
    config = with_precision(config.resolved(), out)
    parts = split_for_training(data, config, None)  # raises before anything is written
    if config.trains_in_steps and not config.distillation.data:
        steps_in_epoch(len(parts.train), config.batch_size)
    with process_group(device), begin_run(out, "finetune", config, data, resume=resume):
        if was_finished(out, ONNX, config.save):
            return load_classifier(out / WEIGHTS, allow=config.own_packages)[1]
        run = _open_run(config, data, out, device, callback)
        prepare_network(run, is_new=not Checkpoints(out, config.save.keep).saved())
        if config.trains_in_steps:
            _train(run, out)
        elif kept := fit_method(run, out):
            with Journal(out, 0) as journal:
                journal.write(kept.step, {"kept_lr": kept.lr})
        if rank() == 0:
            info = _finish(run, out)
        else:
            info = run.describe()
        wait_for_all()
        report_unreadable(out, run.broken.reasons, callback)
    return info


def _open_run(
    config: FinetuneConfig, data: DataSet, out: Path, device: torch.device, callback: Callback
) -> FinetuneRun:
    """Build the initial network, open the teacher, and record the training images in the run's folder."""
    parts = split_for_training(data, config, out if rank() == 0 else None)
    torch.manual_seed(config.seed)
    with first_process_first():  # it may have to be downloaded
        network = network_of(config, data, parts.train)
    run = FinetuneRun(config=config, data=data, network=network, parts=parts, callback=callback)
    reasons: dict[str, str] = {}
    if rank() == 0:
        if not Init.parse(config.init).from_scratch:
            record_start(out, network.classifier.encoder, callback)
        training_data = replace(data, samples=[*parts.samples, *open_unlabelled(config.distillation)])
        sources = [config.init, config.distillation.teacher]
        reasons = write_seen(out, training_data, sources, callback.progress, person=config.view.person)
    run.leave_out(from_first(reasons))
    if config.distillation.teacher:
        run.answers = ask_teacher(config.distillation, parts.train, data.labels, out, callback.progress)
    ready_to_train(network.classifier, device)
    freeze_layers(network.classifier.encoder, config.network.frozen_layers)
    if config.hardware.grad_checkpointing:
        checkpoint_activations(network.classifier.encoder)
    return run


def _train(run: FinetuneRun, out: Path) -> None:
    """Train the network in steps; the first process then loads the weights of the chosen epoch."""
    config = run.config
    model = run.model
    samples = [*run.parts.train, *(run.answers.unlabelled if run.answers else ())]
    ema: Any = None if config.ema_decay is None else ModelEmaV3(model, decay=config.ema_decay, use_warmup=True)
    trainer = Trainer.of(
        *(config, out, model, run.callback), samples=len(samples), head_lr_scale=config.head_lr_scale, every_epoch=True
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
        config, trainer, run.probe, samples=len(samples), has_ema=ema is not None, what="fine-tuning", done=point.step
    )
    augmented = AugmentedViews(config.view, config.seed, config.augment.randaugment, config.augment.altered)
    views = ViewDataset(samples, augmented)
    save = partial(_save, run, trainer, ema, plan.steps_per_epoch)
    objective = run.objective
    with closing(trainer.steps(plan, load_batches(config, views, plan, run.broken), save)) as steps:
        for step in steps:
            seed_step(config.seed, step.done)
            values = finetune_step(
                runner,
                trainer.optimizer,
                [run.batch(batch, progress=step.done / plan.steps) for batch in step.batches],
                objective=objective,
                augment=config.augment,
                stats=run.network.stats,
                precision=precision_of(config.hardware),
                max_grad_norm=config.optimizer.max_grad_norm,
            )
            if ema is not None:
                ema.update(model, step=step.done)
            lr = trainer.optimizer.param_groups[-1]["lr"]
            step.report(values | {"lr": lr, "epoch": (step.done + 1) / plan.steps_per_epoch})
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
    if run.config.select == "last":
        best = None
    else:
        best = trainer.checkpoints.best()
    point = trainer.checkpoints.load(best or trainer.checkpoints.saved()[-1], run.model)
    if ema is not None:
        ema.load_state_dict(point.more["ema"])
        run.model.load_state_dict(ema.module.state_dict())


def _finish(run: FinetuneRun, out: Path) -> ClassifierInfo:
    """Fit the temperature and write all files."""
    adjust_logits(run)
    fit_distance(run)
    info = run.calibrate()
    save_classifier(run.model, info, out / WEIGHTS)
    write_tensors(out / ENCODER, run.model.encoder.state_dict())
    export_classifier(run.model, info, out / ONNX)
    if not run.config.save.keep_finished:
        Checkpoints(out, run.config.save.keep, run.config.save.keep_every).finish()
    return info
