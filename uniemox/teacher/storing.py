"""Asking a teacher once about a whole data set, and keeping what it said in a file."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from uniemox.data.sample import DataSet
from uniemox.data.seen import seen_by
from uniemox.errors import TeacherError
from uniemox.io.files import replacing
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.stored import save_features
from uniemox.views.loader import ViewDataset, build_loader
from uniemox.views.transforms import WholeViews

WHOLE_PX, BATCH = 224, 64


def store_features(
    teacher: Teacher,
    source: str,
    data: DataSet,
    path: Path,
    *,
    texts: Sequence[str],
    with_person: bool = False,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Write a teacher's features of every whole image of a data set, and of texts, to one .npz file.

    source: the teacher's name, by which it is known what it has seen.  texts: distinct ones, see `distinct_texts`; none
    for a teacher without a text side.  with_person: the mean of its features of whole image and person instead of those
    of the image.  device: where the teacher is.  on_progress: called with the number of images done.
    Images that can't be read are left out. Returns how many could. Raises TeacherError if none can.
    """
    places = [[(0, i) for i in range(start, min(start + BATCH, len(data)))] for start in range(0, len(data), BATCH)]
    keys, rows = list[str](), list[torch.Tensor]()
    for batch in build_loader(ViewDataset(data.samples, WholeViews(WHOLE_PX)), places, workers=1):
        if batch.samples:
            names = [sample.key for sample in batch.samples]
            views = [batch.scene, batch.person] if with_person else [batch.scene]
            asked = [teacher.image_features(view.to(device).float() / 255, names).cpu() for view in views]
            rows.append(torch.stack(asked).mean(dim=0))  # (n, C)
            keys += names
        on_progress(len(keys))
    if not rows:
        raise TeacherError(f"none of the images of {data.name} can be read, so there is nothing to ask the teacher")
    features = [teacher.text_features(texts[i : i + BATCH]).cpu() for i in range(0, len(texts), BATCH)]
    with replacing(path) as partial:
        save_features(
            partial,
            image_keys=keys,
            image_features=torch.cat(rows),
            texts=texts,
            text_features=torch.cat(features) if features else torch.empty(0, teacher.width),
            seen=seen_by(source),
        )
    return len(keys)
