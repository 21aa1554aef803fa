"""The teacher of a run, asked as seldom as its settings allow."""

from pathlib import Path

import torch

from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.model.config import ModelConfig
from uniemox.pretrain.config import TeacherConfig
from uniemox.teacher.clip import ClipTeacher
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.stored import StoredTeacher
from uniemox.teacher.storing import store_features
from uniemox.teacher.text_cache import TextCachedTeacher
from uniemox.training.callbacks import Callback
from uniemox.training.distributed import rank, wait_for_all

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
