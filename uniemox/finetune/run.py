"""A fine-tuning run, from a pre-trained encoder to `model.safetensors` and `model.onnx`."""

from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.checkpoints.saving import write_tensors
from uniemox.classifier_info import ClassifierInfo
from uniemox.data.order import steps_in_epoch
from uniemox.data.sample import DataSet
from uniemox.data.seen import write_seen
from uniemox.evaluate.calibration import calibrated
from uniemox.evaluate.classifier_outputs import select_views
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import FinetuneConfig, Task
from uniemox.finetune.evaluator import Evaluator
from uniemox.finetune.fitting import adjust_logits, fit_after_encoder, fit_distance, fit_neighbour_head, prepare_network
from uniemox.finetune.network import BuiltNetwork, checkpoint_activations, mean_head, network_of
from uniemox.finetune.samples import (
    Parts,
    check_same_division,
    class_weights,
    has_target,
    split_for_training,
    target_of,
)
from uniemox.finetune.step import (
    AugmentedViews,
    FinetuneBatch,
    Objective,
    TeacherAnswers,
    ask_teacher,
    finetune_step,
    open_unlabelled,
    seed_step,
)
from uniemox.io.files import ENCODER, ONNX, WEIGHTS
from uniemox.io.weight_names import Init
from uniemox.labels import AFFECT
from uniemox.model.classifier import Classifier
from uniemox.model.config import is_foreign
from uniemox.model.spec import with_fitted
from uniemox.training.hardware import (
    precision_of,
    ready_to_train,
    setup_device,
    wrap,
)
from uniemox.training.journal import Callback, Journal, NullCallback, RunPlan
from uniemox.training.optimization import build_schedule, freeze_layers, parameter_groups
from uniemox.training.processes import first_process_first, process_group, rank, wait_for_all
from uniemox.training.run_folder import begin_run
from uniemox.training.state import Checkpoints, Progress, was_finished
from uniemox.training.trainer import Trainer, measure_plan, run_order
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader
from uniemox.views.patches import normalise


def finetune(
    config: FinetuneConfig, data: DataSet, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> ClassifierInfo:
    """Fine-tune on a data set; under torchrun every process calls it alike.

    out: the run's folder, a new one, or one to continue if `resume`. Returns what the finished classifier means.
    The same settings and data give the same bits on the CPU with the same number of processes, however often the run is
    killed and resumed.
    Raises ConfigError, DataError, CheckpointError, NonFiniteLossError; StoppedError after SIGTERM or Ctrl-C. Whatever
    it raises, the last checkpoint stays.
    """
    device, callback = setup_device(config.hardware), callback or NullCallback()
    config = replace(config.resolved(), hardware=replace(config.hardware, precision=precision_of(config.hardware)))
    with process_group(device):
        split_for_training(data, config, None)  # raises before anything is written
        if rank() == 0:
            begin_run(out, "finetune", config, data, resume=resume)
        wait_for_all()
        if was_finished(out, ONNX, config.save):
            own = [name.partition(".")[0] for name in (config.method, config.network.fusion or "") if is_foreign(name)]
            return load_classifier(out / WEIGHTS, allow=own)[1]
        parts = split_for_training(data, config, out if rank() == 0 else None)
        torch.manual_seed(config.seed)
        with first_process_first():  # it may have to be downloaded
            network = network_of(config, data, parts.train)
        if rank() == 0:
            shown = replace(data, samples=[*parts.samples, *open_unlabelled(config.distillation)])
            sources = [config.init, config.distillation.teacher]
            write_seen(out, shown, sources, lambda what, done, _: callback.progress(what, done, len(shown)))
        answers = None
        if config.distillation.teacher:
            reported = partial(callback.progress, "asking the teacher")
            answers = ask_teacher(config.distillation, parts.train, data.labels, out, reported)
        ready_to_train(network.classifier, device)
        freeze_layers(network.classifier.encoder, config.network.frozen_layers)
        if config.hardware.grad_checkpointing:
            checkpoint_activations(network.classifier.encoder)
        run = _Run(config, data, out, network, parts, answers, callback)
        run.fit()
        info = run.finish() if rank() == 0 else run.describe()
        wait_for_all()
    return info


class _Run:
    """State that the steps of a run share."""

    def __init__(
        self,
        config: FinetuneConfig,
        data: DataSet,
        out: Path,
        network: BuiltNetwork,
        parts: Parts,
        answers: TeacherAnswers | None,
        callback: Callback,
    ) -> None:
        self.config, self.data, self.out, self.network = config, data, out, network
        self.parts, self.train, self.callback = parts, parts.train, callback
        self.answers = answers
        self.shown = [*self.train, *(answers.unlabelled if answers else ())]  # in the steps of method full
        self.model: Classifier = network.classifier
        self.device = next(self.model.parameters()).device
        self.checkpoints = Checkpoints(out, config.save.keep, config.save.keep_every)
        self.steps_per_epoch = 0  # of what trains in steps, as are the next two
        self.optimizer: Any = None
        self.ema: Any = None  # timm's running mean of the weights
        self.evaluator = Evaluator(config, data.labels, network.stats, callback)
        weights = class_weights(parts.train, data.labels) if config.class_weighting == "balanced" else None
        self.objective = Objective(task=config.task, class_weights=weights, method=self.model.method)
        if config.trains_in_steps:
            adam = config.optimizer
            self.steps_per_epoch = steps_in_epoch(len(self.shown), config.batch_size)
            groups = parameter_groups(self.model, adam.weight_decay, config.layer_decay, config.head_lr_scale)
            self.optimizer = torch.optim.AdamW(groups, lr=adam.lr(config.batch_size), betas=adam.betas, fused=True)
            if config.ema_decay is not None:
                self.ema = ModelEmaV3(self.model, decay=config.ema_decay, use_warmup=True)

    def fit(self) -> None:
        """The head alone, or all of the network."""
        prepare_network(self.model, self.evaluator, self.train, is_new=not self.checkpoints.found())
        if self.config.trains_in_steps:
            self._train()
            return
        if self.config.fit == "mean":
            sources = Init.parse(self.config.init).networks
            check_same_division(self.out, sources)
            self.model.head.load_state_dict(mean_head(sources, self.data.labels.labels).state_dict())
        elif self.config.fit == "knn":
            fit_neighbour_head(self.model, self.evaluator, self.train)
        else:
            selection = self.parts.selection if self.config.chooses_epoch else ()
            kept = fit_after_encoder(self.model, self.evaluator, self.train, self.objective, selection)
            if kept is not None:
                with Journal(self.out, 0, is_written=rank() == 0) as journal:
                    journal.write(kept.step, {"kept_lr": kept.lr})

    def finish(self) -> ClassifierInfo:
        """Choose the epoch, fit the temperature, write everything down."""
        if self.config.trains_in_steps:
            self._choose()
        if self.config.logit_adjustment > 0:
            adjust_logits(self.model.head, self.evaluator.target(self.train), self.config.logit_adjustment)
        fit_distance(self.model, self.evaluator, self.train)
        task: Task = "label" if self.config.calibrate_on == "labels" else self.config.task
        known = [sample for sample in self.parts.calibration if has_target(sample, task, self.data.labels)]
        held_out = self.evaluator.outputs(self.model, known, what="calibrating")
        target = target_of(held_out.samples, task, self.data.labels).numpy()
        info = calibrated(self.describe(), held_out.values, held_out.distances, target)
        save_classifier(self.model, info, self.out / WEIGHTS)
        write_tensors(self.out / ENCODER, self.model.encoder.state_dict())
        export_classifier(self.model, info, self.out / ONNX)
        if not self.config.save.keep_finished:
            self.checkpoints.finish()
        return info

    def describe(self) -> ClassifierInfo:
        """Return the classifier's metadata before calibration."""
        view, labels = self.config.view, self.data.labels
        return ClassifierInfo(
            labels=AFFECT if self.config.task == "affect" else labels.labels,
            label_set=labels.name,
            kind=labels.kind,
            task=self.config.task,
            streams=self.model.streams,
            hides_person=view.hide_person,
            person=view.person,
            size=view.size,
            crop_fraction=view.crop_fraction,
            mean=self.network.stats.mean,
            std=self.network.stats.std,
            trained_on=self.data.name_with_split("all"),
            calibration_images=self.parts.calibration_images,
            network=with_fitted(self.network.spec, self.model),
        )

    def _train(self) -> None:
        """All steps that are still to be done."""
        config = self.config
        schedule = build_schedule(self.optimizer, config.schedule, self.steps_per_epoch)
        trainer = Trainer(
            out=self.out,
            model=self.model,
            optimizer=self.optimizer,
            checkpoints=self.checkpoints,
            set_lr=schedule.step_update,
            broken=BrokenCount(config.max_unreadable),
            callback=self.callback,
            save_every=(*config.save.due, self.steps_per_epoch),  # every epoch gets its score
            tracker=config.save.tracker,
        )
        progress = trainer.resume()
        if progress is not None and self.ema is not None:
            self.ema.load_state_dict(progress.more["ema"])
        if progress is None and config.probe_first:
            fit_after_encoder(self.model, self.evaluator, self.train, self.objective)
            if self.ema is not None:
                self.ema.set(self.model)
        runner = wrap(self.model, self.device, compiled=config.hardware.compile)
        plan = self._plan(trainer, 0 if progress is None else progress.step)
        views = ViewDataset(self.shown, AugmentedViews(config.view, config.seed, config.augment.randaugment))
        loader = build_loader(views, run_order(config, plan), plan.workers)
        with closing(trainer.steps(plan, loader, self._save)) as steps:
            for step in steps:
                seed_step(config.seed, step.done)
                values = finetune_step(
                    runner,
                    self.optimizer,
                    [self._batch(views, progress=step.done / plan.steps) for views in step.batches],
                    objective=self.objective,
                    augment=config.augment,
                    stats=self.network.stats,
                    precision=precision_of(config.hardware),
                    max_grad_norm=config.optimizer.max_grad_norm,
                )
                if self.ema is not None:
                    self.ema.update(self.model, step=step.done)
                lr = self.optimizer.param_groups[-1]["lr"]
                step.report(values | {"lr": lr, "epoch": (step.done + 1) / self.steps_per_epoch})
        self.model.train()

    def _batch(self, views: ViewBatch, *, progress: float) -> FinetuneBatch:
        """progress: share of the steps that are done."""
        used = select_views(self.model, views)
        target = (self.answers.targets if self.answers else self.evaluator.target)(views.samples)
        method = self.model.method
        own = None if method is None else method.batch_targets(views.samples, progress=progress)
        return FinetuneBatch(scene=used.get("scene"), person=used.get("person"), target=target, own=own)

    def _save(self, done: int, journal: Journal) -> None:
        """A checkpoint; at the end of an epoch with its score on the watched samples."""
        if rank() == 0:
            score = None
            if done % self.steps_per_epoch == 0:
                shown = self.model if self.ema is None else self.ema.module
                score = self.evaluator.score(shown, self.parts.selection)
                journal.write(done, {"score": score})
            more = {} if self.ema is None else {"ema": self.ema.state_dict()}
            self.checkpoints.save(Progress(done, score, more), self.model, self.optimizer)
        wait_for_all()

    def _choose(self) -> None:
        """Put the weights of the chosen epoch into the model."""
        best = self.checkpoints.best() if self.config.select == "best" else None
        progress = self.checkpoints.load(best or self.checkpoints.found()[-1], self.model)
        if self.ema is not None:
            self.ema.load_state_dict(progress.more["ema"])
            self.model.load_state_dict(self.ema.module.state_dict())
            self.ema = None

    def _plan(self, trainer: Trainer, done: int) -> RunPlan:
        config = self.config
        is_half = precision_of(config.hardware) == "bfloat16"

        def probe(pixels: Tensor) -> None:
            views = normalise(pixels, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=is_half):
                self.model(views, views)

        self.model.eval()  # grey images would go into the statistics of batch norms, once more each resume
        steps = config.schedule.steps(self.steps_per_epoch)
        disk = self.checkpoints.need_space(self.model, steps=steps, has_ema=self.ema is not None)
        plan = measure_plan("fine-tuning", config, trainer, probe, samples=len(self.shown), done=done, disk_bytes=disk)
        self.model.train()
        return plan
