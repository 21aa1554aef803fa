"""A teacher as a classifier that was shown no example: which class's sentence is nearest to the image."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from uniemox.data.hashes import image_hashes
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import refuse_seen, seen_by
from uniemox.errors import DataError
from uniemox.evaluate.calibration import softmax
from uniemox.evaluate.run import Evaluation, write_evaluation
from uniemox.evaluate.scores import score_classes
from uniemox.teacher.opening import open_teacher
from uniemox.views.loader import ViewDataset, build_loader
from uniemox.views.transforms import WholeViews

SENTENCE = "The overall emotion is {}."  # with which the texts of pre-training end
WHOLE_PX, BATCH = 224, 64
SCALE = 100.0  # 1 / temperature, CLIP's largest


def score_zero_shot(
    source: str, data: DataSet, out: Path, *, split: str, on_progress: Callable[[int], None] = lambda done: None
) -> Path:
    """Score a teacher's zero-shot answers and write them as `uniemox evaluate` does, to a folder's evaluations.

    source: as `open_teacher` takes it.  split: what the samples are, for the file's name.
    Where a person is known, the image's feature is the mean of those of image and person, as the demo's teacher is
    fitted. Raises TeacherError, and DataError if nothing has a label or can be read, or if the teacher has seen some of
    the images.
    """
    teacher = open_teacher(source)
    samples = [sample for sample in data.samples if sample.label is not None]
    if not samples:
        raise DataError(f"{data.name} has no labels to compare with")
    if seen := seen_by(source):
        refuse_seen(samples, image_hashes(samples), seen, data.name)
    texts = F.normalize(teacher.text_features([SENTENCE.format(label) for label in data.labels.labels]), dim=-1)
    shown: list[Sample] = []
    rows = []
    places = [[(0, i) for i in range(at, min(at + BATCH, len(samples)))] for at in range(0, len(samples), BATCH)]
    for batch in build_loader(ViewDataset(samples, WholeViews(WHOLE_PX)), places, workers=1):
        if batch.samples:
            keys = [sample.key for sample in batch.samples]
            scene = teacher.image_features(batch.scene.float() / 255, keys)
            has_person = torch.tensor([bool(s.persons or s.target_box) for s in batch.samples])[:, None]
            person = teacher.image_features(batch.person.float() / 255, keys) if has_person.any() else scene
            image = torch.where(has_person, (scene + person) / 2, scene)
            rows.append((SCALE * F.normalize(image, dim=-1) @ texts.T).detach().cpu().numpy())
            shown += batch.samples
        on_progress(len(shown))
    if not rows:
        raise DataError(f"none of the images of {data.name} can be read")
    logits = np.concatenate(rows).astype(np.float32)  # (N, E)
    truth = np.array([sample.label for sample in shown])
    names = data.labels.labels
    predictions = tuple(
        {
            "key": sample.key,
            "path": str(sample.image),
            "group": sample.group or sample.image_key,
            "label": names[int(label)],
            "predicted": names[int(row.argmax())],
            "probabilities": {name: round(float(p), 6) for name, p in zip(names, softmax(row[None])[0], strict=True)},
        }
        for sample, label, row in zip(shown, truth, logits, strict=True)
    )
    units = [sample.group or sample.image_key for sample in shown]
    scores = score_classes(logits, truth, data.labels, groups=units)
    out.mkdir(parents=True, exist_ok=True)
    notes = (f"zero-shot answers of {source}",)
    return write_evaluation(Evaluation(scores, None, notes, predictions), out, data, split)
