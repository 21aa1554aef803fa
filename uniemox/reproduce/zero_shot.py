"""A teacher as a classifier without training examples: the class whose sentences are nearest to the image.

A class is the mean of its sentences' features, as CLIP's authors average prompts (arXiv 2103.00020, section 3.1.4).
"""

from collections.abc import Callable, Mapping
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

FITTED = "The overall emotion is {}."  # the end of the texts that `teacher fit` reads
PROMPTS: Mapping[str, tuple[str, ...]] = {
    "evoked": (
        "A photo that evokes {}.",
        "A photo that makes people feel {}.",
        "An image that makes its viewers feel {}.",
        "A picture full of {}.",
        FITTED,
    ),
    "felt": (
        "A photo of a person who feels {}.",
        "A person showing {}.",
        "A photo of somebody feeling {}.",
        "Someone in this scene feels {}.",
        FITTED,
    ),
    "expressed": ("A photo of a face that shows {}.", "A face with an expression of {}.", "This face expresses {}."),
}
WHOLE_PX, BATCH = 224, 64
SCALE = 100.0  # 1 / temperature, CLIP's largest


def score_zero_shot(
    source: str, data: DataSet, out: Path, *, split: str, on_progress: Callable[[int], None] = lambda done: None
) -> Path:
    """Score a teacher's zero-shot answers and write them as `uniemox evaluate` does, to a folder's evaluations.

    source: as `open_teacher` takes it; runs on a GPU if there is one.  split: of the samples, for the file's name.
    Reads the whole scene, and several prompts a class. Only a teacher of `teacher fit` reads what it was fitted on: one
    sentence a class, and where a person is known the mean of the features of image and person.
    Raises TeacherError, and DataError if nothing has a label or can be read, or if the teacher has seen some of the
    images.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    teacher, is_fitted = open_teacher(source, device), source.startswith("fitted:")
    samples = [sample for sample in data.samples if sample.label is not None]
    if not samples:
        raise DataError(f"{data.name} has no labels to compare with")
    if seen := seen_by(source):
        refuse_seen(samples, image_hashes(samples), seen, data.name)
    prompts = (FITTED,) if is_fitted else PROMPTS[data.labels.kind]
    sentences = [prompt.format(label) for label in data.labels.labels for prompt in prompts]
    of_sentences = F.normalize(teacher.text_features(sentences).float(), dim=-1)
    texts = F.normalize(of_sentences.unflatten(0, (-1, len(prompts))).mean(dim=1), dim=-1)  # (E, C)
    shown: list[Sample] = []
    rows = []
    places = [[(0, i) for i in range(at, min(at + BATCH, len(samples)))] for at in range(0, len(samples), BATCH)]
    for batch in build_loader(ViewDataset(samples, WholeViews(WHOLE_PX)), places, workers=1):
        if batch.samples:
            keys = [sample.key for sample in batch.samples]
            image = teacher.image_features(batch.scene.to(device).float() / 255, keys)
            if is_fitted:
                has_person = torch.tensor([bool(s.persons or s.target_box) for s in batch.samples], device=device)
                person = teacher.image_features(batch.person.to(device).float() / 255, keys)
                image = torch.where(has_person[:, None], (image + person) / 2, image)
            rows.append((SCALE * F.normalize(image.float(), dim=-1) @ texts.to(image.device).T).detach().cpu().numpy())
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
