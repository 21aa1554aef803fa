"""Teach a classifier's networks to compute the same features for altered photographs as for the plain ones.

Run: python -m recipes.robust_features scene.onnx --data fi:fi,fi:fi_more --exclude check.json --unlabelled
    folder:flickr8k/images --hold-out splits.json --out robust.onnx

The model is an ONNX file of convolutional networks with a linear head, such as the package's. Each network is trained
alone. Its targets are its own features for the plain image, computed with its original weights, so that plain images
keep their answers, the heads stay as they are, and the networks don't become alike. Labels are not used in training.
The file with the trained weights stores each with as many bits as before. Temperature, likely sets and distances are
fitted again to the held-out images: those of split val in a file of splits, or those that the seed of `finetune` holds
out. RUN/network-N.safetensors keeps each trained network; one that is there is not trained again.
"""

import argparse
import copy
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from PIL import Image
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from uniemox.checkpoints.onnx_encoders import load_onnx_encoder
from uniemox.data.sample import DataSet, ImageFile, Sample, decode_sample
from uniemox.data.seen import hashes_of, read_seen, seen_file, write_hashes
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import calibrated
from uniemox.evaluate.outputs import outputs_of_network
from uniemox.evaluate.recalibration import write_model
from uniemox.export.compact import BYTES, HALF, SCALES, as_bytes
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import split_for_training
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.predict.network import Network
from uniemox.predict.views import scene_view
from uniemox.views.alterations import draw_alteration
from uniemox.views.patches import IMAGENET, normalise

Pixels = NDArray[np.uint8]
SIZE = 224  # px, as in prediction: features depend on the size of objects
BATCH_SIZE = 32
ALTERED_SHARE = 0.75
FLIP_SHARE = 0.5
EMA_DECAY = 0.998
WARMUP_STEPS = 50
LAYER_DECAY = 0.8
MAX_GRAD_NORM = 5.0
MEASURED = 512  # plain images on which deviations are measured
MIN_DEVIATION = 1e-3  # of a channel that is nearly constant
HEAD = "classifier.head.weight"


class NormalisedEncoder(nn.Module):
    """Encoder with its own pixel normalisation: (N, 3, S, S), ImageNet-normalised -> (N, D)."""

    def __init__(self, encoder: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = scale
        self.shift = shift

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features (N, D)."""
        return self.encoder(pixels * self.scale + self.shift)


def open_networks(model: Path) -> list[NormalisedEncoder]:
    """Return the networks of a model."""
    encoder, _ = load_onnx_encoder(model)
    if isinstance(encoder, ConcatEncoder):
        return [NormalisedEncoder(part, encoder.scale[i], encoder.shift[i]) for i, part in enumerate(encoder.encoders)]
    return [NormalisedEncoder(encoder, torch.ones(3, 1, 1), torch.zeros(3, 1, 1))]


def head_parts(model: Path, widths: Sequence[int]) -> list[Tensor]:
    """Return the parts of the linear head that read each network, (E, Di)."""
    stored = {tensor.name: tensor for tensor in onnx.load(model).graph.initializer}
    return list(torch.from_numpy(read_weight(stored, HEAD)).split(list(widths), dim=1))


def read_weight(stored: dict[str, TensorProto], name: str) -> NDArray[np.float32]:
    """Return a weight of an ONNX file in float32, however it is stored."""
    if name in stored:
        return numpy_helper.to_array(stored[name]).astype(np.float32)
    if name + HALF in stored:
        return numpy_helper.to_array(stored[name + HALF]).astype(np.float32)
    return numpy_helper.to_array(stored[name + BYTES]) * numpy_helper.to_array(stored[name + SCALES])


def plain_views(samples: Sequence[Sample], cache: Path) -> Pixels:
    """Return the images as networks see them in prediction, (N, S, S, 3), from a file that is written once."""
    if not cache.exists():
        partial = cache.with_suffix(".partial.npy")
        views = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(samples), SIZE, SIZE, 3))
        for i, sample in enumerate(samples):
            views[i] = scene_view(decode_sample(sample)[0], SIZE, 1.0).transpose(1, 2, 0)
        views.flush()
        partial.rename(cache)
    return np.load(cache, mmap_mode="r")


def pixels_of(views: Pixels) -> Tensor:
    """Return views (N, S, S, 3) as (N, 3, S, S), normalised; channels last in memory, which is faster."""
    pixels = torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2)
    return normalise(pixels, torch.device("cpu"), IMAGENET).contiguous(memory_format=torch.channels_last)


def batches(views: Pixels, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield plain and altered pixels of the same images, both (N, 3, S, S)."""
    draw = random.Random(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH_SIZE:
            order += draw.sample(range(len(views)), len(views))
        plain = []
        altered = []
        for i in order[:BATCH_SIZE]:
            view = views[i]
            if draw.random() < FLIP_SHARE:
                view = view[:, ::-1]
            plain.append(view)
            if draw.random() < ALTERED_SHARE:
                view = np.asarray(draw_alteration(draw)(Image.fromarray(np.ascontiguousarray(view))))
            altered.append(view)
        order = order[BATCH_SIZE:]
        yield pixels_of(np.stack(plain)), pixels_of(np.stack(altered))


@dataclass(frozen=True, slots=True)
class FeatureDistance:
    """Distance of features from their targets: over all channels, and in what the head reads of them."""

    deviation: Tensor
    """(D,), standard deviation of each channel over plain images."""
    head: Tensor
    """(E, D)."""
    head_deviation: Tensor
    """(E,), standard deviation of each logit over plain images."""

    @classmethod
    @torch.no_grad()
    def of(cls, network: nn.Module, views: Pixels, head: Tensor) -> "FeatureDistance":
        """Measure the deviations."""
        chosen = np.random.default_rng(0).permutation(len(views))[:MEASURED]
        features = torch.cat([network(pixels_of(views[np.sort(part)])) for part in np.array_split(chosen, 16)])
        return cls(features.std(dim=0) + MIN_DEVIATION, head, (features @ head.T).std(dim=0))

    def __call__(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the sum of both mean squared distances, in units of the variances.  features, target: (N, D)."""
        difference = features - target
        channels = (difference / self.deviation).square().mean()
        logits = ((difference @ self.head.T) / self.head_deviation).square().mean()
        return channels + logits


def train(network: NormalisedEncoder, head: Tensor, views: Pixels, *, steps: int, lr: float, out: Path) -> None:
    """Train one network, and write the moving average of its weights.

    Args:
        network: The network, in eval mode.
        head: Part of the head that reads it, (E, D).
        views: Plain images, (N, S, S, 3).
        steps: Steps of 32 images.
        lr: Learning rate of the last layer; each layer before has 0.8 times that of the next.
        out: File for the weights.
    """
    teacher = copy.deepcopy(network).requires_grad_(False).to(memory_format=torch.channels_last)
    student = network.to(memory_format=torch.channels_last)
    # Batch norms that are folded into convolutions stay as they are.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(".bn" not in name)
    named = {name: parameter for name, parameter in student.encoder.named_parameters() if parameter.requires_grad}
    parameters = list(named.values())
    average = [parameter.detach().clone() for parameter in parameters]
    groups = param_groups_layer_decay(student.encoder, weight_decay=0.0, layer_decay=LAYER_DECAY)
    optimizer = torch.optim.AdamW(groups, lr=lr)
    distance = FeatureDistance.of(teacher, views, head)
    started = time.perf_counter()
    for step, (plain, altered) in enumerate(batches(views, steps, seed=0)):
        schedule = min(1.0, (step + 1) / WARMUP_STEPS) * (0.5 + 0.5 * np.cos(np.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = group["lr_scale"] * lr * schedule
        with torch.no_grad():
            target = teacher(plain)
        with torch.autocast("cpu", torch.bfloat16):
            features = student(altered)
        loss = distance(features.float(), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, [*parameters], 1 - decay)
        done = step + 1
        if done % 20 == 0 or done == steps:
            speed = done * BATCH_SIZE / (time.perf_counter() - started)
            print(f"step {done}/{steps} loss {loss.item():.4f} {speed:.1f} images/s", file=sys.stderr, flush=True)
    tensors = {name: value.contiguous() for name, value in zip(named, average, strict=True)}
    safetensors.torch.save_file(tensors, out)


def write_weights(model: Path, trained: Sequence[dict[str, Tensor]], out: Path) -> None:
    """Write a model's file with trained weights, each stored with as many bits as before."""
    file = onnx.load(model)
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    for i, tensors in enumerate(trained):
        prefix = f"classifier.encoder.encoders.{i}." if len(trained) > 1 else "classifier.encoder."
        for name, tensor in tensors.items():
            weight = prefix + name
            values = tensor.numpy().reshape(read_weight(stored, weight).shape)
            if weight + BYTES in stored:
                for packed in as_bytes(weight, values)[0]:
                    stored[packed.name].CopyFrom(packed)
            elif weight + HALF in stored:
                stored[weight + HALF].CopyFrom(numpy_helper.from_array(values.astype(np.float16), weight + HALF))
            else:
                stored[weight].CopyFrom(numpy_helper.from_array(values, weight))
    onnx.save(file, out)


def calibrate(model: Path, samples: Sequence[Sample]) -> None:
    """Fit temperature, likely sets and distances of a file to held-out images, in place."""
    network = Network.open(model)
    outputs = outputs_of_network(network, samples)
    labels = np.array([sample.label for sample in outputs.samples], dtype=np.intp)
    target = np.eye(len(network.info.labels))[labels]
    info = calibrated(replace(network.info, distances=()), outputs.values, outputs.distances, target)
    write_model(model, model, info.to_json())


def divide(data: DataSet, hold_out: Path | None) -> tuple[list[Sample], list[Sample]]:
    """Return the images to train on and the held-out ones.

    Args:
        data: Labelled images.
        hold_out: File of splits, whose split val is held out and whose split test is not used; None: the images that
            `finetune` holds out.
    """
    if hold_out is None:
        parts = split_for_training(data, FinetuneConfig(init="embedded", select="last", monitor="holdout"), None)
        return parts.train, parts.calibration
    return list(data.only("train").samples), list(data.only("val").samples)


def main() -> None:
    """Train the networks of a model, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="ONNX file")
    parser.add_argument("--data", required=True, help="KIND:PATH of labelled images, several with commas between")
    parser.add_argument("--exclude", type=Path, help="output of uniemox data check --json")
    parser.add_argument("--unlabelled", help="KIND:PATH of further images")
    parser.add_argument("--hold-out", type=Path, help="file of splits")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-4], help="for each network, or one for all")
    parser.add_argument("--networks", type=Path, required=True, help="folder for the trained networks")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    args = parser.parse_args()
    args.networks.mkdir(parents=True, exist_ok=True)
    data = open_data(args.data, with_texts=False, exclude=args.exclude, splits=args.hold_out)
    training, held_out = divide(data, args.hold_out)
    if args.unlabelled:
        training += open_data(args.unlabelled, with_texts=False).samples
    training = [sample for sample in training if isinstance(sample.image, ImageFile)]
    print(f"{len(training)} images to train on, {len(held_out)} held out", file=sys.stderr)
    networks = open_networks(args.model)
    paths = [args.networks / f"network-{i}.safetensors" for i in range(len(networks))]
    rates = args.lr * len(networks) if len(args.lr) == 1 else args.lr[: len(networks)]
    if not all(path.exists() for path in paths):
        views = plain_views(training, args.networks / "views.npy")
        with torch.no_grad():
            widths = [network(pixels_of(views[:1])).shape[1] for network in networks]
        heads = head_parts(args.model, widths)
        for network, head, lr, path in zip(networks, heads, rates, paths, strict=True):
            if not path.exists():
                train(network, head, views, steps=args.steps, lr=lr, out=path)
    hashes = hashes_of([*training, *held_out])
    write_hashes(seen_file(args.out), read_seen(args.model) | hashes)
    write_weights(args.model, [safetensors.torch.load_file(path) for path in paths], args.out)
    calibrate(args.out, held_out)


if __name__ == "__main__":
    main()
