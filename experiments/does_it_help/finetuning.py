"""Fine-tunes an encoder on a share of the labels, and scores it on images held out of fine-tuning.

    python -m experiments.does_it_help.finetuning --init RUN --data shards:PATH --fraction 0.1 --lr 5e-4 --out tuned.npz

The head reads the CLS token and the mean patch token, so that neither objective of pre-training is at a disadvantage.
It starts from a logistic regression on the frozen features. All images of train but `HELD_OUT` are for fine-tuning.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from experiments.does_it_help.features import open_encoder
from experiments.does_it_help.outcomes import store_labels, write_outcome
from experiments.does_it_help.plan import BATCH, HELD_OUT, SIDE_PX, TUNING_EPOCHS, Tuning
from experiments.does_it_help.probe import balanced, true_of
from uniemox.data.sample import Sample
from uniemox.data.source import open_data
from uniemox.data.splits import hold_out, take_fraction
from uniemox.evaluate.classifier_outputs import Reading, encode_samples, outputs_of
from uniemox.finetune.network import feature_width
from uniemox.model.classifier import Classifier
from uniemox.training.hardware import fast_precision, keep_freed_memory, ready_to_train
from uniemox.training.optimization import build_optimizer, train_step, warmup_cosine
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, ViewDataset, build_loader
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import TrainViews

TRAIN_VIEW = ViewConfig(size=SIDE_PX, min_area=0.3)
EVAL_VIEW = ViewConfig(size=SIDE_PX, crop_fraction=1.0)
CPU = torch.device("cpu")
SMOOTHING = 0.1
WEIGHT_DECAY = 0.05
WARMUP = 0.1
CLIP_NORM = 1.0
# sklearn's C of the first head, times the number of images.
PENALTY = 10.0


def main() -> None:
    """Parse the command line, fine-tune, and write the outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", required=True, help="a pre-training run, untrained, or histogram")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--labels", type=Path, help="file that names the scored images, the same for all outcomes")
    parser.add_argument(
        "--fraction", type=float, default=1.0, help="share of each class to use, more than 0, at most 1"
    )
    parser.add_argument("--lr", type=float, required=True, help="maximum learning rate for 256 images")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    tuning = Tuning(args.fraction, args.lr, args.seed)
    figures, keys, labels, answers = fine_tune(args.init, args.data, tuning)
    if args.labels is not None:
        store_labels(args.labels, keys, labels)
    write_outcome(args.out, figures, answers)


def fine_tune(init: str, data: str, tuning: Tuning) -> tuple[dict[str, Any], np.ndarray, np.ndarray, np.ndarray]:
    """Fine-tune and score.

    Returns:
        The scores on val, and names (N,), labels (N,) and log-probabilities (N, E) of the held-out images.
    """
    dataset = open_data(data)
    samples = sorted((sample for sample in dataset.samples if sample.label is not None), key=lambda sample: sample.key)
    scheme = hold_out(samples, min(HELD_OUT, len(samples) // 4), seed=0)
    parts = {name: [sample for sample in samples if scheme[sample.key] == name] for name in ("train", "val", "test")}
    training = take_fraction(parts["train"], tuning.fraction, tuning.seed)
    torch.manual_seed(tuning.seed)
    encoder, stats = open_encoder(init, SIDE_PX)
    width = feature_width(encoder, SIDE_PX)
    network = Classifier(encoder, feature_width=width, outputs=len(dataset.labels), streams="scene")
    ready_to_train(network, CPU)
    _fit_head(network, training, stats)
    # The colour histogram has no parameters to train.
    if any(True for _ in encoder.parameters()):
        _train(network, training, stats, tuning)

    def answers(part: Sequence[Sample]) -> tuple[list[Sample], np.ndarray]:
        outputs = outputs_of(network, part, EVAL_VIEW, Reading(stats=stats))
        return list(outputs.samples), F.log_softmax(torch.from_numpy(outputs.values), dim=1).numpy()

    val_outputs = answers(parts["val"])
    test_outputs = answers(parts["test"])
    labels, val_labels = (
        np.array([sample.label for sample in part], dtype=np.uint8) for part, _ in (test_outputs, val_outputs)
    )
    figures = {
        "images": len(training),
        "val_log_likelihood": balanced(true_of(val_outputs[1], val_labels), val_labels),
        "val_recall": balanced(val_outputs[1].argmax(axis=1) == val_labels, val_labels),
    }
    return figures, np.array([sample.key for sample in test_outputs[0]], dtype=str), labels, test_outputs[1]


def _fit_head(network: Classifier, samples: Sequence[Sample], stats: PixelStats) -> None:
    """Set the head to a logistic regression on the encoder's features, with equal class weights."""
    outputs = encode_samples(network, samples, EVAL_VIEW, Reading(stats=stats))
    features = outputs.values[:, 0].astype(np.float64)
    mean = features.mean(axis=0)
    std = features.std(axis=0) + 1e-6
    model = LogisticRegression(C=PENALTY / len(samples), class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit((features - mean) / std, [sample.label for sample in outputs.samples])
    weight = model.coef_ / std  # (E, D)
    head: Any = network.head
    with torch.no_grad():
        head.weight[model.classes_] = torch.from_numpy(weight).float()
        head.bias[model.classes_] = torch.from_numpy(model.intercept_ - weight @ mean).float()


def _train(network: Classifier, samples: Sequence[Sample], stats: PixelStats, tuning: Tuning) -> None:
    """Train all weights on random crops and flips."""
    head: Any = network.head
    counts = np.bincount([sample.label or 0 for sample in samples], minlength=head.out_features)
    weights = torch.from_numpy(len(samples) / (len(counts) * np.maximum(counts, 1))).float()  # (E,)
    precision = fast_precision("cpu")
    rng = np.random.default_rng(tuning.seed)
    batches = [
        [(epoch, int(i)) for i in rows]
        for epoch in range(TUNING_EPOCHS[tuning.fraction])
        for rows in np.array_split(rng.permutation(len(samples)), max(1, len(samples) // BATCH))
    ]
    optimizer = build_optimizer(network, lr=tuning.lr * BATCH / 256, weight_decay=WEIGHT_DECAY)
    set_lr = warmup_cosine(optimizer, tuning.lr * BATCH / 256, steps=len(batches), warmup=WARMUP)

    def losses_of(batch: ViewBatch) -> tuple[Tensor, dict[str, Tensor]]:
        targets = torch.tensor([sample.label for sample in batch.samples])
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(normalise(batch.scene, CPU, stats)).float()  # (N, E)
        loss = F.cross_entropy(logits, targets, weights, label_smoothing=SMOOTHING)
        return loss, {"loss": loss}

    network.train()
    dataset = ViewDataset(samples, TrainViews(TRAIN_VIEW, tuning.seed))
    for step, batch in enumerate(build_loader(dataset, batches, workers=1)):
        set_lr(step)
        train_step(network, optimizer, [batch], lambda part: len(part.samples), losses_of, CLIP_NORM)


if __name__ == "__main__":
    main()
