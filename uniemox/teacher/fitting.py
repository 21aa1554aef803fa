"""Fits a small teacher on pairs of images and texts."""

import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.data.prompts import text_of
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import SEEN, hashes_of, seen_by, write_hashes
from uniemox.data.unreadable import UNREADABLE, describe_unreadable, lost_by_class, write_unreadable
from uniemox.errors import DataError
from uniemox.model.encoder import fast_precision
from uniemox.teacher.config import FitConfig
from uniemox.teacher.fitted import (
    DESCRIPTION,
    RUN,
    SMALL,
    SMALL_CHANNELS,
    Architecture,
    FittedTeacher,
    check_folder,
    words_of,
)
from uniemox.teacher.opening import open_timm_tower, timm_name
from uniemox.teacher.protocol import fit_pixels
from uniemox.teacher.sources import TimmImageTower
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import setup_device
from uniemox.training.journal import Callback
from uniemox.training.optimization import parameter_groups_of, update, warmup_cosine
from uniemox.training.run_folder import begin_run
from uniemox.training.state import Checkpoints
from uniemox.training.trainer import Trainer
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount, ViewBatch, ViewDataset, build_loader
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD
from uniemox.views.transfer import to_device
from uniemox.views.transforms import TrainViews, WholeViews

FEWEST = 20  # minimum number of images, of which two are held out
LOOK_AT = 64  # images per batch when encoding
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Pairs:
    """P images with their texts."""

    inputs: Tensor  # (V, P, 2, 3, S, S) uint8, scene and person, or (1, P, D) float32 features of a frozen tower
    texts: Sequence[tuple[str, ...]]  # P; distinct, at least one each


def texts_by_image(data: DataSet, with_emotion: bool) -> tuple[list[Sample], list[tuple[str, ...]]]:
    """Return the images that have texts, once each, and their texts."""
    samples: dict[str, Sample] = {}
    texts: dict[str, dict[str, None]] = {}
    for sample in data.samples:
        if sample.text and sample.text.strip():
            samples.setdefault(sample.image_key, sample)
            texts.setdefault(sample.image_key, {})[text_of(sample, with_emotion)] = None
    if len(samples) < FEWEST:
        raise DataError(
            f"{data.name}: {len(samples)} of its images have a text, a teacher needs at least {FEWEST}; write texts "
            f"with: uniemox data describe {data.name}"
        )
    return list(samples.values()), [tuple(several) for several in texts.values()]


def look_at_pairs(
    dataset: ViewDataset,
    texts: Sequence[tuple[str, ...]],
    views: int,
    look: Callable[[ViewBatch], Tensor],
    workers: int,
    broken: BrokenCount,
    on_progress: Callable[[int, int], None],
) -> Pairs:
    """Compute all views of all readable images in memory.  look: converts a batch of n to (n, ...)."""
    images = len(dataset)
    places = [
        [(view, i) for i in range(start, min(start + LOOK_AT, images))]
        for view in range(views)
        for start in range(0, images, LOOK_AT)
    ]
    row_of = {sample.key: i for i, sample in enumerate(dataset.samples)}
    inputs = torch.empty(0)
    is_read = torch.zeros(images, dtype=torch.bool)
    done = 0
    for place, batch in zip(places, build_loader(dataset, places, workers), strict=True):
        broken.add(batch.broken)
        if batch.samples:
            seen = look(batch)
            if not is_read.any():
                inputs = seen.new_zeros(views, images, *seen.shape[1:])  # (V, P, ...)
            rows = torch.tensor([row_of[sample.key] for sample in batch.samples])
            inputs[place[0][0], rows] = seen
            is_read[rows] = True
        done += len(place)
        on_progress(done, views * images)
    if not is_read.any():
        raise DataError(f"none of {images} images can be read: {next(iter(broken.reasons.values()))}")
    if is_read.all():
        return Pairs(inputs, texts)
    return Pairs(inputs[:, is_read], [texts[i] for i in is_read.nonzero().flatten().tolist()])


def sentences_of(texts: Sequence[str]) -> frozenset[str]:
    """Return an image's texts, and every sentence of them."""
    return frozenset([*texts, *(sentence for text in texts for sentence in SENTENCE_END.split(text.strip()))])


HELD_OUT = 0.1  # share of the images
# side of the small tower's input; minimum area of a crop, which should match its text
SMALL_PX = 96
MIN_AREA = 0.6
# initial 1 / temperature and offset; maximum scale, as CLIP's
SCALE = 10.0
BIAS = -3.0
MAX_SCALE = 100.0
SCALE_LR = 10.0  # factor on the learning rate of scale and offset
MIN_RARITY = 0.02  # weight of a word that is in all texts
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
WARMUP = 0.1  # share of the steps


def fit_teacher(
    data: DataSet, config: FitConfig, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> FittedTeacher:
    """Fit a teacher on the samples that have a text, write it to a folder and return it, frozen, on the CPU.

    Every tenth image is held out; retrieval scores on these images are in `about["figures"]`.
    The folder stores the hashes of all images, so that models that learn from the teacher are not scored on them. Its
    subfolder `fit` holds the run, which `resume` continues with the same bits, however often it was killed.
    not finite, and StoppedError after SIGTERM or Ctrl-C.

    Raises:
        DataError: With fewer than 20 images that have a text.
        ConfigError: If the data don't fill a batch.
        TeacherError: If the frozen tower can't be loaded or `out` has other files.
        NonFiniteLossError: For a loss that is.
    """
    callback = callback or Callback()
    check_folder(out)
    samples, texts = texts_by_image(data, config.with_emotion)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(samples)).tolist()
    held_out = round(HELD_OUT * len(samples))
    steps_in_epoch(len(samples) - held_out, config.batch_size)  # raises before images are read
    device = setup_device(HardwareConfig())  # of the tower, which does nearly all the work; the rest is small
    if config.image_tower is None:
        tower = None
    else:
        tower = open_timm_tower(config.image_tower, device)
    broken = BrokenCount(config.max_unreadable)

    def look(batch: ViewBatch) -> Tensor:
        if tower is None:
            return torch.stack([batch.scene, batch.person], dim=1)  # (n, 2, 3, S, S)
        return tower.image_features(to_device(batch.scene, device).float() / 255).cpu()  # (n, D)

    def look_at(which: list[int], views: int, what: str) -> Pairs:
        if tower is None:
            size = config.image_size or SMALL_PX
        else:
            size = max(tower.size)
        varied = TrainViews(ViewConfig(size=size, min_area=MIN_AREA), config.seed)
        dataset = ViewDataset([samples[i] for i in which], varied if views else WholeViews(size))
        progress = partial(callback.progress, what)
        return look_at_pairs(dataset, [texts[i] for i in which], max(views, 1), look, config.workers, broken, progress)

    held = look_at(order[:held_out], 0, "reading held-out images")
    training_pairs = look_at(order[held_out:], config.views if tower is None else 0, "reading images")
    teacher = _start(config, tower, training_pairs.texts)
    if (out / DESCRIPTION).is_file() and not resume:  # replaces a finished teacher
        shutil.rmtree(out / RUN, ignore_errors=True)
    with begin_run(out / RUN, "teacher", config, data, resume=resume):
        _fit(teacher, training_pairs, config, out / RUN, callback)
    teacher.about = {
        "data": data.name,
        "pictures": len(training_pairs.texts),
        "texts": len({text for several in training_pairs.texts for text in several}),
        "broken": len(broken.reasons),
        "config": asdict(config),
        "figures": _figures(teacher, held, is_frozen=tower is not None),
    }
    teacher.save(out)
    seen = hashes_of(samples, lambda what, done, _: callback.progress(what, done, len(samples)))
    write_hashes(out / SEEN, seen | seen_by(config.image_tower or ""))
    write_unreadable(out / UNREADABLE, broken.reasons)
    for line in lost_by_class(samples, broken.reasons, data.labels, "the data"):
        callback.note(line)
    for line in describe_unreadable(broken.reasons, out / UNREADABLE):
        callback.note(line)
    return teacher


def _start(config: FitConfig, tower: TimmImageTower | None, texts: Sequence[tuple[str, ...]]) -> FittedTeacher:
    """Build a teacher with random weights, except the frozen tower's, without using the process's generator."""
    size = config.image_size or SMALL_PX
    words = sorted({word for several in texts for text in several for word in words_of(text)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        architecture = Architecture(
            network=SMALL if config.image_tower is None else timm_name(config.image_tower),
            image_size=(size, size) if tower is None else tower.size,
            mean=tuple(IMAGENET_MEAN if tower is None else tower.mean),
            std=tuple(IMAGENET_STD if tower is None else tower.std),
            channels=SMALL_CHANNELS if tower is None else tower.width,
            width=config.width,
            words=tuple(words),
        )
        teacher = FittedTeacher(architecture, {})
    teacher.text.rarity.copy_(_rarity(texts, words))
    if tower is not None:
        teacher.network.load_state_dict(tower.model.state_dict())
    return teacher


def _fit(teacher: FittedTeacher, pairs: Pairs, config: FitConfig, run: Path, callback: Callback) -> None:
    """Train in place, and freeze."""
    is_frozen = config.image_tower is not None
    model = _PairModel(teacher)
    if is_frozen:
        learned = [teacher.project, teacher.text]
    else:
        learned = [teacher]
    weights = [parameter for module in learned for parameter in module.parameters()]
    groups = parameter_groups_of([(weights, 1.0), ([model.scale, model.bias], SCALE_LR)], WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, fused=True)
    said = [sentences_of(several) for several in pairs.texts]
    steps_per_epoch = steps_in_epoch(len(said), config.batch_size)
    trainer = Trainer(
        out=run,
        model=model,
        optimizer=optimizer,
        set_lr=warmup_cosine(optimizer, config.lr, steps=config.epochs * steps_per_epoch, warmup=WARMUP),
        checkpoints=Checkpoints(run, keep=1),
        callback=callback,
    )
    plan = trainer.plan_small_run("fitting", config, samples=len(said))
    teacher.train()
    sizes = {"batch_size": plan.batch_size, "start": plan.done, "steps": plan.steps}
    order = RunOrder(plan.samples, seed=config.seed, **sizes)
    with closing(trainer.steps(plan, order)) as steps:
        for step in steps:
            [batch] = step.batches
            rows = [i for _, i in batch]
            epoch = step.done // steps_per_epoch
            texts = sorted(set().union(*(said[i] for i in rows)))
            truth = torch.tensor([[text in said[i] for text in texts] for i in rows])  # (N, M)
            image = _features(teacher, pairs.inputs[epoch % len(pairs.inputs), rows], is_frozen)
            loss = pair_loss(image, teacher.text(texts), truth, model.scale.exp().clamp(max=MAX_SCALE), model.bias)
            optimizer.zero_grad()
            loss.backward()
            values = update(model, optimizer, {"loss": loss.detach()}, None)
            step.report(
                values | {"lr": optimizer.param_groups[0]["lr"], "epoch": (step.done + 1) / plan.steps_per_epoch}
            )
    teacher.eval().requires_grad_(False)


class _PairModel(nn.Module):
    """Teacher with the learned scale and offset of its cosines."""

    def __init__(self, teacher: FittedTeacher) -> None:
        super().__init__()
        self.teacher = teacher
        self.scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.bias = nn.Parameter(torch.tensor(BIAS))


def pair_loss(image: Tensor, text: Tensor, truth: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Compute the sigmoid loss of all pairs of images and texts (SigLIP, arXiv 2303.15343, equation 1).

    A mean over the N images of a sum over the texts. A text's weight is its number of images to the power of 3/4, so
    common texts are learned sooner than rare ones.

    Args:
        image: (N, C), text: (M, C), not normalised.
        truth: (N, M) bool.
        scale: 1 / temperature.
        bias: Offset.
    """
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T + bias  # (N, M)
    target = truth.to(logits.dtype)
    weight = target.sum(dim=0) ** 0.75  # (M,)
    weight = weight / weight.mean()
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum(dim=1).mean()


def _features(teacher: FittedTeacher, inputs: Tensor, is_frozen: bool) -> Tensor:
    """Return features of images, (N, C): mean of scene and person, (N, 2, 3, S, S), or projected ones, (N, D)."""
    if is_frozen:
        return teacher.project(inputs)
    a = teacher.architecture
    pixels = fit_pixels(inputs.flatten(0, 1).float() / 255, a.image_size, a.mean, a.std)  # (2N, 3, S, S)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bfloat16"):
        features = teacher.project(teacher.network(pixels))
    return features.float().unflatten(0, (-1, 2)).mean(dim=1)


def recalls(similarity: Tensor, truth: Tensor) -> dict[str, float]:
    """Return how often a true candidate is among the one or five most similar, and the chance level.

    Means over the queries, 0 to 1.

    Args:
        similarity: (Q, M), queries by candidates.
        truth: (Q, M) bool.
    """
    ranked = truth.gather(1, similarity.argsort(dim=1, descending=True, stable=True))  # (Q, M)
    candidates = truth.shape[1]
    counts = truth.sum(dim=1).tolist()
    result = {}
    for k in (1, 5):
        missed = [math.comb(candidates - n, k) / math.comb(candidates, k) if k <= candidates else 0.0 for n in counts]
        result[f"recall_at_{k}"] = float(ranked[:, :k].any(dim=1).double().mean())
        result[f"chance_at_{k}"] = 1 - sum(missed) / len(missed)
    return result


def _figures(teacher: FittedTeacher, held: Pairs, is_frozen: bool) -> dict[str, Any]:
    """Return retrieval scores of held-out images and texts, in both directions."""
    texts = sorted({text for several in held.texts for text in several})
    truth = torch.tensor([[text in several for text in texts] for several in held.texts])
    with torch.no_grad():
        images = [_features(teacher, inputs, is_frozen) for inputs in held.inputs[0].split(LOOK_AT)]
    similarity = F.normalize(torch.cat(images), dim=-1) @ F.normalize(teacher.text_features(texts), dim=-1).T
    return {
        "pictures": len(held.texts),
        "texts": len(texts),
        "picture_to_text": recalls(similarity, truth),
        "text_to_picture": recalls(similarity.T, truth.T),
    }


def _rarity(pairs_texts: Sequence[tuple[str, ...]], words: Sequence[str]) -> Tensor:
    """Return the weight of each word, (V + 1,): log of images over images whose texts have it; 0 first, for padding."""
    count = Counter(word for several in pairs_texts for word in {w for text in several for w in words_of(text)})
    return torch.tensor([0.0, *(math.log((1 + len(pairs_texts)) / (1 + count[w])) + MIN_RARITY for w in words)])
