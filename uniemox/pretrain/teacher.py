"""The teacher of a run, asked as seldom as its settings allow."""

from pathlib import Path

import torch

from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.model.config import ModelConfig
from uniemox.pretrain.config import TeacherConfig
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.stored import StoredTeacher
from uniemox.teacher.storing import store_features
from uniemox.teacher.text_cache import TextCachedTeacher
from uniemox.training.callbacks import Callback
from uniemox.training.distributed import rank, wait_for_all

FEATURES, TEXTS = "teacher_features.npz", "text_features"


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
            store_features(
                open_teacher(config.source, device),
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
    teacher = open_teacher(config.source, device)
    return TextCachedTeacher(teacher, out / TEXTS) if model.needs_text_features else teacher
