"""The teacher of a run, asked as seldom as its settings allow."""

from pathlib import Path

import torch

from uniemox.data.sample import DataSet
from uniemox.data.seen import seen_by
from uniemox.errors import TeacherError
from uniemox.files import replacing
from uniemox.model.config import ModelConfig
from uniemox.pretrain.batches import distinct_texts
from uniemox.pretrain.config import TeacherConfig
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.stored import StoredTeacher, save_features
from uniemox.teacher.text_cache import TextCachedTeacher
from uniemox.training.callbacks import Callback
from uniemox.training.distributed import rank, wait_for_all
from uniemox.views.loader import ViewDataset, build_loader
from uniemox.views.transforms import WholeViews

FEATURES, TEXTS = "teacher_features.npz", "text_features"
WHOLE_PX, BATCH = 224, 64


def prepare_teacher(
    config: TeacherConfig, model: ModelConfig, data: DataSet, out: Path, device: torch.device, callback: Callback
) -> Teacher | None:
    """The teacher as the step asks it; None if no loss needs one. What it was asked for is kept in the run's folder.

    Raises TeacherError if it can't be had.
    """
    if not model.needs_image_features:
        return None
    if config.view != "augmented":
        if rank() == 0 and not (out / FEATURES).exists():
            teacher = open_teacher(config.source, device)
            _ask_once(teacher, config, model, data, out / FEATURES, device, callback)
        wait_for_all()
        return StoredTeacher(out / FEATURES)
    teacher = open_teacher(config.source, device)
    return TextCachedTeacher(teacher, out / TEXTS) if model.needs_text_features else teacher


def _ask_once(
    teacher: Teacher,
    config: TeacherConfig,
    model: ModelConfig,
    data: DataSet,
    path: Path,
    device: torch.device,
    callback: Callback,
) -> None:
    """Features of every whole image, and of every distinct text if a loss needs them, in one file."""
    places = [[(0, i) for i in range(start, min(start + BATCH, len(data)))] for start in range(0, len(data), BATCH)]
    keys, rows = [], []
    for batch in build_loader(ViewDataset(data.samples, WholeViews(WHOLE_PX)), places, workers=1):
        if len(batch.samples):
            names = [sample.key for sample in batch.samples]
            views = [batch.scene] if config.view == "whole" else [batch.scene, batch.person]
            asked = [teacher.image_features(view.to(device).float() / 255, names).cpu() for view in views]
            rows.append(torch.stack(asked).mean(dim=0))
            keys += names
        callback.progress("asking the teacher about images", len(keys), len(data))
    if not rows:
        raise TeacherError(f"none of the images of {data.name} can be read, so there is nothing to ask the teacher")
    texts = distinct_texts(data.samples, config.with_emotion) if model.needs_text_features else []
    features = [teacher.text_features(texts[i : i + BATCH]).cpu() for i in range(0, len(texts), BATCH)]
    with replacing(path) as partial:
        save_features(
            partial,
            image_keys=keys,
            image_features=torch.cat(rows),
            texts=texts,
            text_features=torch.cat(features) if features else torch.empty(0, teacher.width),
            seen=seen_by(config.source),
        )
