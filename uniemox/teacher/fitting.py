"""Fits a small teacher on pairs of images and texts."""

import math
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import SEEN, hashes_of, seen_by, write_hashes
from uniemox.data.unreadable import UNREADABLE_FILE, describe_unreadable, lost_by_class, write_unreadable
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
from uniemox.teacher.pairs import ENCODE_BATCH_SIZE, SMALL_PX, PairReader, Pairs, texts_by_image
from uniemox.teacher.protocol import fit_pixels
from uniemox.teacher.sources import TimmImageTower
from uniemox.training.callback import Callback
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import autocast, fast_precision, setup_device
from uniemox.training.optimization import build_grouped_optimizer, train_step
from uniemox.training.run_folder import begin_run
from uniemox.training.trainer import Trainer
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def sentences_of(texts: Sequence[str]) -> frozenset[str]:
    """Return an image's texts, and every sentence of them."""
    return frozenset([*texts, *(sentence for text in texts for sentence in SENTENCE_END.split(text.strip()))])


# Share of the images that are held out.
HELD_OUT_FRACTION = 0.1
# Initial 1 / temperature and offset of the cosines.
SCALE = 10.0
BIAS = -3.0
# Maximum 1 / temperature, as CLIP's.
MAX_SCALE = 100.0
# Factor on the learning rate of scale and offset.
SCALE_LR = 10.0
# Weight of a word that is in all texts.
MIN_RARITY = 0.02
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
# Share of the steps in which the learning rate rises.
WARMUP_FRACTION = 0.1


def fit_teacher(
    data: DataSet, config: FitConfig, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> FittedTeacher:
    """Fit a teacher on the samples that have a text, write it to a folder and return it, frozen, on the CPU.

    A tenth of the images is held out; retrieval scores on these images are in `about["figures"]`.
    The folder stores the hashes of all images, so that models that learn from the teacher are not scored on them. Its
    subfolder `fit` holds the run, which `resume` continues with the same bits, however often it was killed.

    Args:
        data: Samples, of which those with a text are used.
        config: Settings of the fit.
        out: Folder to write.
        resume: Continue the run in the folder.
        callback: Receiver of progress and notes; None: neither is reported.

    Raises:
        DataError: With fewer than 20 images that have a text, or if too many images can't be read.
        ConfigError: If the data don't fill a batch.
        TeacherError: If the frozen tower can't be loaded or `out` has other files.
        NonFiniteLossError: For a loss that is not finite.
        StoppedError: After SIGTERM or Ctrl-C.
    """
    callback = callback or Callback()
    check_folder(out)
    samples, texts = pairs_to_fit(data, config)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(samples)).tolist()
    held_out = round(HELD_OUT_FRACTION * len(samples))
    # A frozen tower does nearly all the work, so only this runs on a GPU.
    device = setup_device(HardwareConfig())
    tower = None if config.image_tower is None else open_timm_tower(config.image_tower, device)
    reader = PairReader(samples, texts, config, tower=tower, device=device, callback=callback)
    held_out_pairs = reader.read(order[:held_out], 0, "reading held-out images")
    training_pairs = reader.read(order[held_out:], config.views if tower is None else 0, "reading images")
    teacher = initial_teacher(config, tower, training_pairs.texts)
    # The folder has a finished teacher, which the new one replaces.
    if (out / DESCRIPTION).is_file() and not resume:
        shutil.rmtree(out / RUN, ignore_errors=True)
    with begin_run(out / RUN, "teacher", config, data, resume=resume):
        _fit(teacher, training_pairs, config, out / RUN, callback)
    teacher.about = {
        "data": data.name,
        "pictures": len(training_pairs.texts),
        "texts": len({text for image_texts in training_pairs.texts for text in image_texts}),
        "broken": len(reader.broken.reasons),
        "config": asdict(config),
        "figures": _retrieval_scores(teacher, held_out_pairs, is_frozen=tower is not None),
    }
    teacher.save(out)
    _record_images(
        out, data, samples, image_tower=config.image_tower or "", unreadable=reader.broken.reasons, callback=callback
    )
    return teacher


def _record_images(
    out: Path,
    data: DataSet,
    samples: Sequence[Sample],
    *,
    image_tower: str,
    unreadable: Mapping[str, str],
    callback: Callback,
) -> None:
    """Write the hashes of all images and the list of unreadable ones to a teacher's folder, and report these."""
    hashes = hashes_of(samples, lambda stage, done, _: callback.progress(stage, done, len(samples)))
    write_hashes(out / SEEN, hashes | seen_by(image_tower))
    write_unreadable(out / UNREADABLE_FILE, unreadable)
    for line in lost_by_class(samples, unreadable, data.labels, "the data"):
        callback.note(line)
    for line in describe_unreadable(unreadable, out / UNREADABLE_FILE):
        callback.note(line)


def pairs_to_fit(data: DataSet, config: FitConfig) -> tuple[list[Sample], list[tuple[str, ...]]]:
    """Return the images and texts of a fit, see `texts_by_image`, before images are read.

    Raises:
        DataError: If there are fewer than 20.
        ConfigError: If they do not fill a batch.
    """
    samples, texts = texts_by_image(data, config.with_emotion)
    steps_in_epoch(len(samples) - round(HELD_OUT_FRACTION * len(samples)), config.batch_size)
    return samples, texts


def dry_run(config: FitConfig, data: DataSet, out: Path) -> int:
    """Read settings and texts as a fit does, and save a teacher with random weights.

    Args:
        config: Settings of the fit.
        data: Images with texts.
        out: Folder that a fit would write.

    Returns:
        Number of images with texts.

    Raises:
        UniemoxError: For whatever would stop the fit before its first step.
    """
    samples, texts = pairs_to_fit(data.to_describe(), config)
    initial_teacher(config, None, texts).save(out)
    return len(samples)


def initial_teacher(config: FitConfig, tower: TimmImageTower | None, texts: Sequence[tuple[str, ...]]) -> FittedTeacher:
    """Build a teacher with random weights, except the frozen tower's, without using the process's generator."""
    size = config.image_size or SMALL_PX
    words = sorted({word for image_texts in texts for text in image_texts for word in words_of(text)})
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
    """Train the teacher in place, and freeze it."""
    is_frozen = config.image_tower is not None
    model = _PairModel(teacher)
    trained_modules: list[nn.Module] = [teacher.project, teacher.text] if is_frozen else [teacher]
    weights = [parameter for module in trained_modules for parameter in module.parameters()]
    parts = [(weights, 1.0), ([model.scale, model.bias], SCALE_LR)]
    optimizer = build_grouped_optimizer(parts, weight_decay=WEIGHT_DECAY, betas=BETAS)
    sentences = [sentences_of(image_texts) for image_texts in pairs.texts]
    trainer = Trainer.of_single_process(
        config, run, model, optimizer, callback, samples=len(sentences), warmup=WARMUP_FRACTION
    )
    plan = trainer.resume_single_process("fitting", config, samples=len(sentences))
    teacher.train()
    sizes = {"batch_size": plan.batch_size, "start": plan.done, "steps": plan.steps}
    order = RunOrder(plan.samples, seed=config.seed, **sizes)

    def losses_of(batch: Sequence[tuple[int, int]]) -> tuple[Tensor, dict[str, Tensor]]:
        rows = [i for _, i in batch]
        # All images of a batch are of one epoch.
        epoch = batch[0][0]
        # Every image is compared with all sentences of the batch's images.
        texts = sorted(set().union(*(sentences[i] for i in rows)))
        truth = torch.tensor([[text in sentences[i] for text in texts] for i in rows])  # (N, M)
        image = _features(teacher, pairs.inputs[epoch % len(pairs.inputs), rows], is_frozen)  # (N, C)
        loss = pair_loss(image, teacher.text(texts), truth, model.scale.exp().clamp(max=MAX_SCALE), model.bias)
        return loss, {"loss": loss}

    with closing(trainer.steps(plan, order)) as steps:
        for step in steps:
            values = train_step(model, optimizer, step.batches, len, losses_of, None)
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
        image: (N, C), not normalised.
        text: (M, C), not normalised.
        truth: (N, M) bool, True if a text belongs to an image.
        scale: Factor of the cosines, 1 / temperature.
        bias: Offset of the scaled cosines.
    """
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T + bias  # (N, M)
    target = truth.to(logits.dtype)
    weight = target.sum(dim=0) ** 0.75  # (M,)
    weight = weight / weight.mean()
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # (N, M)
    return (losses * weight).sum(dim=1).mean()


def _features(teacher: FittedTeacher, inputs: Tensor, is_frozen: bool) -> Tensor:
    """Return features of images, (N, C).

    Args:
        teacher: The teacher.
        inputs: (N, D) features of a frozen tower, or (N, 2, 3, S, S) uint8, scene and person, whose features are
            averaged.
        is_frozen: The inputs are features of a frozen tower.
    """
    if is_frozen:
        return teacher.project(inputs)
    tower = teacher.architecture
    pixels = fit_pixels(inputs.flatten(0, 1).float() / 255, tower.image_size, tower.mean, tower.std)  # (2N, 3, S, S)
    with autocast(torch.device("cpu"), fast_precision("cpu")):
        features = teacher.project(teacher.network(pixels))  # (2N, C)
    return features.float().unflatten(0, (-1, 2)).mean(dim=1)  # (N, C)


def recalls(similarity: Tensor, truth: Tensor) -> dict[str, float]:
    """Return how often a true candidate is among the one or five most similar, and the chance level.

    Args:
        similarity: (Q, M), queries by candidates.
        truth: (Q, M) bool, True if a candidate belongs to a query.

    Returns:
        recall_at_1, chance_at_1, recall_at_5 and chance_at_5: means over the queries, 0 to 1.
    """
    ranked = truth.gather(1, similarity.argsort(dim=1, descending=True, stable=True))  # (Q, M)
    candidates = truth.shape[1]
    counts = truth.sum(dim=1).tolist()
    result = {}
    for k in (1, 5):
        # Probability that none of k candidates drawn at random is one of a query's n true ones.
        missed = [math.comb(candidates - n, k) / math.comb(candidates, k) if k <= candidates else 0.0 for n in counts]
        result[f"recall_at_{k}"] = float(ranked[:, :k].any(dim=1).double().mean())
        result[f"chance_at_{k}"] = 1 - sum(missed) / len(missed)
    return result


def _retrieval_scores(teacher: FittedTeacher, pairs: Pairs, is_frozen: bool) -> dict[str, Any]:
    """Return retrieval scores of held-out images and texts, in both directions."""
    texts = sorted({text for image_texts in pairs.texts for text in image_texts})
    truth = torch.tensor([[text in image_texts for text in texts] for image_texts in pairs.texts])  # (P, M)
    with torch.no_grad():
        batches = [_features(teacher, inputs, is_frozen) for inputs in pairs.inputs[0].split(ENCODE_BATCH_SIZE)]
    images = torch.cat(batches)  # (P, C)
    similarity = F.normalize(images, dim=-1) @ F.normalize(teacher.text_features(texts), dim=-1).T  # (P, M)
    return {
        "pictures": len(pairs.texts),
        "texts": len(texts),
        "picture_to_text": recalls(similarity, truth),
        "text_to_picture": recalls(similarity.T, truth.T),
    }


def _rarity(texts: Sequence[tuple[str, ...]], words: Sequence[str]) -> Tensor:
    """Return the weight of each word: the log of the number of images over that of images whose texts have the word.

    Args:
        texts: P, the texts of each image.
        words: V words.

    Returns:
        (V + 1,); the first is 0, for padding.
    """
    count = Counter(word for image_texts in texts for word in {w for text in image_texts for w in words_of(text)})
    return torch.tensor([0.0, *(math.log((1 + len(texts)) / (1 + count[word])) + MIN_RARITY for word in words)])
