"""Scores a teacher's zero-shot predictions, by the sentences of table3.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from uniemox.classifier_info import ClassifierInfo
from uniemox.data import DataSet, Sample, image_hashes, refuse_seen, seen_by
from uniemox.errors import DataError
from uniemox.evaluate import Evaluation, Outputs, Scorer, write_evaluation
from uniemox.io import Progress, silent
from uniemox.labels import scored_labels
from uniemox.network_spec import NetworkSpec
from uniemox.teacher import open_teacher
from uniemox.views import WholeViews, load_batches
from uniemox_paper.table3 import DATA

PROMPTS: Mapping[str, Sequence[str]] = DATA["prompts"]
"""Sentences by the kind of the labels."""
# The texts of `teacher fit` end like this.
FITTED_PROMPT = "The overall emotion is {}."
SCENE_PX = 224
BATCH = 64
# CLIP's maximum of 1 / temperature.
LOGIT_SCALE = 100.0


def score_zero_shot(source: str, data: DataSet, out: Path, *, split: str, on_progress: Progress = silent) -> Path:
    """Score a teacher's zero-shot predictions and write them like `uniemox evaluate`, to a folder's evaluations.

    Uses the whole scene, and several prompts per class. A teacher of `teacher fit` gets the inputs that it was fitted
    on: one sentence per class, and the mean of the features of image and person if a person is known.

    Args:
        source: Teacher as for `open_teacher`; it runs on a GPU if there is one.
        data: Data set to score.
        out: Folder to write to.
        split: Split of the samples, for the file's name.
        on_progress: Called with the number of images that are done, and of all images.

    Returns:
        The file with the scores.

    Raises:
        TeacherError: If the teacher can't be opened.
        DataError: If no image has a label or can be read, or if the teacher was trained on some of the images.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher = open_teacher(source, device)
    is_fitted = source.startswith("fitted:")
    samples = [sample for sample in data.samples if sample.label is not None]
    if not samples:
        raise DataError(f"{data.name} has no labels to compare with")
    if training_hashes := seen_by(source):
        refuse_seen(samples, image_hashes(samples), training_hashes, data.name)
    prompts = (FITTED_PROMPT,) if is_fitted else PROMPTS[data.labels.kind]
    sentences = [prompt.format(label) for label in data.labels.labels for prompt in prompts]
    sentence_features = F.normalize(teacher.text_features(sentences).float(), dim=-1)
    texts = F.normalize(sentence_features.unflatten(0, (-1, len(prompts))).mean(dim=1), dim=-1)  # (E, C)
    readable = list[Sample]()
    rows = list[torch.Tensor]()
    for batch in load_batches(samples, WholeViews(SCENE_PX), BATCH, workers=1):
        if batch.samples:
            keys = [sample.key for sample in batch.samples]
            features = teacher.image_features(batch.scene.to(device).float() / 255, keys)
            if is_fitted:
                # The person view of an image without a person is the whole image.
                features = (features + teacher.image_features(batch.person.to(device).float() / 255, keys)) / 2
            rows.append((LOGIT_SCALE * F.normalize(features, dim=-1) @ texts.to(features.device).T).cpu())
            readable += batch.samples
        on_progress("asking the teacher", len(readable), len(samples))
    if not rows:
        raise DataError(f"none of the images of {data.name} can be read")
    labels = data.labels
    outputs = Outputs(torch.cat(rows).numpy(), None, tuple(readable), ())
    info = ClassifierInfo(network=NetworkSpec(labels=labels.labels), label_set=labels.name, kind=labels.kind)
    scorer = Scorer.of(info, scored_labels(labels, labels), outputs, None)
    scores = scorer.score(np.arange(len(readable)))
    notes = (f"zero-shot answers of {source}",)
    out.mkdir(parents=True, exist_ok=True)
    predictions = tuple(scorer.predictions())
    return write_evaluation(Evaluation(scores, None, notes, predictions, scored_labels=labels.labels), out, data, split)
