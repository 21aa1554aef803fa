"""Teach an embedded model's networks to compute the same features for altered photographs.

Run: python -m recipes.robust_features --model embedded --data fi:fi,fi:fi_more,flickr8k:flickr8k_more \
    --hold-out holdout.txt --out runs/robust

Each network is trained alone. Its target are its own features for the plain image, computed with its original weights,
so plain images keep their answers, the heads stay as they are, and the networks don't become alike. Labels are not
used. Writes RUN/network-N.safetensors for each network; `--write FILE` stores them in a copy of the model's file, with
the bits that it uses for each weight.

`--write-share` weighs the trained weights against the original ones (arXiv 2109.01903): 1 takes the trained ones.
"""

import argparse
import copy
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import numpy_helper
from PIL import Image
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from uniemox.checkpoints.classifier import load_embedded
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.export.compact import BYTES, HALF, SCALES, _as_bytes
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.model.encoder import ConcatEncoder
from uniemox.predict.opening import embedded_file
from uniemox.predict.views import scene_view
from uniemox.views.alterations import draw_alteration
from uniemox.views.patches import IMAGENET, normalise

SIZE = 224  # px, as in prediction: features depend on the size of objects
BATCH_SIZE = 32
ALTERED_SHARE = 0.75
FLIP_SHARE = 0.5
EMA_DECAY = 0.998
WARMUP_STEPS = 50
LAYER_DECAY = 0.8


def plain_view(sample: Sample) -> np.ndarray:
    """Return a sample as the networks see it in prediction: (S, S, 3) uint8."""
    return scene_view(decode_sample(sample)[0], SIZE, 1.0).transpose(1, 2, 0)


def cached_views(samples: Sequence[Sample], path: Path) -> np.ndarray:
    """Return all plain views, (N, S, S, 3) uint8, from a file that is written once."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        views = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(samples), SIZE, SIZE, 3))
        for i, sample in enumerate(samples):
            views[i] = plain_view(sample)
        views.flush()
        partial.rename(path)
    return np.load(path, mmap_mode="r")


def encoders_of(model: str) -> list[nn.Module]:
    """Return the networks of a model, each with the pixel normalisation that it expects."""
    encoder, _ = load_embedded(model)
    if isinstance(encoder, ConcatEncoder):
        return [Scaled(one, encoder.scale[i], encoder.shift[i]) for i, one in enumerate(encoder.encoders)]
    return [Scaled(encoder, torch.ones(3, 1, 1), torch.zeros(3, 1, 1))]


class Scaled(nn.Module):
    """Encoder with its pixel normalisation: (N, 3, S, S), ImageNet-normalised -> (N, D)."""

    def __init__(self, encoder: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.scale = scale
        self.shift = shift

    def forward(self, pixels: Tensor) -> Tensor:
        """Return features (N, D)."""
        return self.encoder(pixels * self.scale + self.shift)


def head_weights(model: str, widths: Sequence[int]) -> list[Tensor]:
    """Return the part of the linear head that reads each network, (E, Di)."""
    file = onnx.load(embedded_file(IN_PACKAGE[model]))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
    name = "classifier.head.weight"
    if name in stored:
        weight = stored[name]
    elif name + HALF in stored:
        weight = stored[name + HALF].astype(np.float32)
    else:
        weight = stored[name + BYTES] * stored[name + SCALES]
    return list(torch.from_numpy(weight.astype(np.float32)).split(list(widths), dim=1))


@dataclass(frozen=True, slots=True)
class Distances:
    """Distance of features from their targets: over all channels, and in what the head reads of them."""

    deviation: Tensor
    """(D,), standard deviation of each channel over plain images."""
    head: Tensor
    """(E, D)."""
    head_deviation: Tensor
    """(E,), standard deviation of each logit over plain images."""

    def __call__(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the mean of both squared distances, each in units of the variance over images.  (N, D) both."""
        difference = features - target
        channels = (difference / self.deviation).square().mean()
        logits = ((difference @ self.head.T) / self.head_deviation).square().mean()
        return channels + logits


def distances_over(encoder: nn.Module, views: np.ndarray, head: Tensor) -> Distances:
    """Measure the deviations on 512 plain images."""
    chosen = np.random.default_rng(0).permutation(len(views))[:512]
    with torch.inference_mode():
        features = torch.cat([encoder(pixels_of(views[np.sort(part)])) for part in chosen.reshape(-1, 32)])
    features = features.clone()
    return Distances(features.std(dim=0) + 1e-3, head, (features @ head.T).std(dim=0))


def pixels_of(views: np.ndarray) -> Tensor:
    """Return (N, S, S, 3) uint8 as (N, 3, S, S), normalised, channels last in memory."""
    pixels = torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2)
    return normalise(pixels, torch.device("cpu"), IMAGENET).contiguous(memory_format=torch.channels_last)


def batches(views: np.ndarray, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield plain and altered pixels of the same images, both (N, 3, S, S)."""
    draw = random.Random(seed)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH_SIZE:
            order += draw.sample(range(len(views)), len(views))
        chosen, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        plain, altered = [], []
        for i in chosen:
            view = views[i]
            if draw.random() < FLIP_SHARE:
                view = view[:, ::-1]
            plain.append(view)
            if draw.random() < ALTERED_SHARE:
                view = np.asarray(draw_alteration(draw)(Image.fromarray(np.ascontiguousarray(view))))
            altered.append(view)
        yield pixels_of(np.stack(plain)), pixels_of(np.stack(altered))


def train(encoder: nn.Module, head: Tensor, views: np.ndarray, *, steps: int, lr: float, out: Path) -> None:
    """Train one network; write the moving average of its weights to `out`."""
    teacher = copy.deepcopy(encoder).eval().requires_grad_(False)
    student = encoder.eval().to(memory_format=torch.channels_last)  # batch norms are folded, see `load_embedded`
    teacher.to(memory_format=torch.channels_last)
    # Batch norms that are folded into convolutions stay as they are.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(".bn" not in name)
    groups = param_groups_layer_decay(student.encoder, weight_decay=0.0, layer_decay=LAYER_DECAY)
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    average = [parameter.detach().clone() for parameter in parameters]
    distance = distances_over(teacher, views, head)
    optimizer = torch.optim.AdamW(groups, lr=lr)
    started = time.perf_counter()
    total = 0.0
    for step, (plain, altered) in enumerate(batches(views, steps, seed=0)):
        progress = step / steps
        for group in optimizer.param_groups:
            group["lr"] = (
                group["lr_scale"] * lr * min(1.0, (step + 1) / WARMUP_STEPS) * (0.5 + 0.5 * np.cos(np.pi * progress))
            )
        with torch.inference_mode():
            target = teacher(plain)
        with torch.autocast("cpu", torch.bfloat16):
            features = student(altered)
        loss = distance(features.float(), target.clone())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1 - decay)
        value = loss.item()
        total = value if step == 0 else 0.98 * total + 0.02 * value
        if step % 20 == 0 or step == steps - 1:
            speed = (step + 1) * BATCH_SIZE / (time.perf_counter() - started)
            print(f"step {step + 1}/{steps} loss {total:.4f} {speed:.1f} images/s", file=sys.stderr, flush=True)
        if step % 200 == 199 or step == steps - 1:
            names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
            tensors = {
                name.removeprefix("encoder."): value.contiguous() for name, value in zip(names, average, strict=True)
            }
            safetensors.torch.save_file(tensors, out)


def training_images(data: DataSet, hold_out: Path | None) -> list[Sample]:
    """Return the images to train on: those of split train or without one, not held out, one of each file."""
    held_out = set() if hold_out is None else set(hold_out.read_text().split("\n"))
    chosen = [
        sample for sample in data.samples if sample.split in (None, "train") and str(sample.image.path) not in held_out
    ]
    return list({sample.image_key: sample for sample in chosen}.values())


def write(model: str, trained: list[dict[str, Tensor]], share: float, out: Path) -> None:
    """Store trained convolutions in a copy of a model's file, each in the bits that the file uses for it."""
    file = onnx.load(embedded_file(IN_PACKAGE[model]))
    stored = {tensor.name: tensor for tensor in file.graph.initializer}
    several = len(trained) > 1
    for i, tensors in enumerate(trained):
        prefix = f"classifier.encoder.encoders.{i}." if several else "classifier.encoder."
        for name, value in tensors.items():
            place = prefix + name
            for suffix in ("", HALF, BYTES):
                if place + suffix in stored:
                    break
            else:
                raise KeyError(place)
            tensor = stored[place + suffix]
            old = numpy_helper.to_array(tensor).astype(np.float32)
            if suffix == BYTES:
                old = old * numpy_helper.to_array(stored[place + SCALES])
            new = (1 - share) * old + share * value.numpy().reshape(old.shape)
            if suffix == BYTES:
                for packed in _as_bytes(place, new)[0]:
                    stored[packed.name].CopyFrom(packed)
            else:
                kind = np.float16 if suffix == HALF else np.float32
                tensor.CopyFrom(numpy_helper.from_array(new.astype(kind), tensor.name))
    onnx.save(file, out)


def main() -> None:
    """Train the networks, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", choices=sorted(IN_PACKAGE))
    parser.add_argument("--data", help="KIND:PATH, several with commas between")
    parser.add_argument("--exclude", type=Path)
    parser.add_argument("--hold-out", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", type=int)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--write-share", type=float, default=1.0)
    given = parser.parse_args()
    encoders = encoders_of(given.model)
    if given.write is not None:
        trained = [safetensors.torch.load_file(given.out / f"network-{i}.safetensors") for i in range(len(encoders))]
        write(given.model, trained, given.write_share, given.write)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    samples = [
        sample
        for name in given.data.split(",")
        for sample in training_images(
            open_data(name, with_texts=False, exclude=given.exclude if name.startswith("fi:") else None), given.hold_out
        )
    ]
    print(f"{len(samples)} images", file=sys.stderr)
    views = cached_views(samples, given.out.parent / "views.npy")
    with torch.inference_mode():
        widths = [encoder(torch.zeros(1, 3, SIZE, SIZE)).shape[1] for encoder in encoders]
    heads = head_weights(given.model, widths)
    for i, encoder in enumerate(encoders):
        if given.network in (None, i):
            out = given.out / f"network-{i}.safetensors"
            train(encoder, heads[i], views, steps=given.steps, lr=given.lr, out=out)


if __name__ == "__main__":
    main()
