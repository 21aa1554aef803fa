"""Pre-train the network of `uniemox reproduce evidence` with lightly-train's DINO, on the same images.

In an environment with uniemox and lightly-train (which is no dependency of uniemox):
    python -m tools.peers --data shards:runs/evidence/runs/data-shard-... --epochs 1 --out peers/dino
    uniemox reproduce evidence ... --peers 'lightly-train, DINO=peers/dino'
Its distillation takes DINOv2 and DINOv3 as teachers alone, whose weights must be downloaded, so that it is not here.
"""

import argparse
import resource
from pathlib import Path

import lightly_train
import timm
import torch

from uniemox.checkpoints.saving import save_encoder
from uniemox.data.sample import decode_sample
from uniemox.data.source import open_data
from uniemox.files import ENCODER
from uniemox.model.encoder import build_encoder
from uniemox.reproduce.evidence.rows import SHAPE, SIDE_PX

ARCHITECTURE = "vit_tiny_patch16_224"
LOCAL_PX = 56  # of lightly-train's local views: half of the global ones, whole patches
BATCH = 64
EXPORTED = "exported_models/exported_last.pt"


def main() -> None:
    """Write the training images, train, and keep the encoder as a run of uniemox does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="KIND:PATH; its split train is learned from")
    parser.add_argument("--epochs", type=int, required=True, help="passes over it; seconds of the cores are printed")
    parser.add_argument("--out", type=Path, required=True, help="folder of images, run and encoder.safetensors")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order")
    given = parser.parse_args()
    images = given.out / "images"
    _write_images(given.data, images)
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    network = timm.create_model(ARCHITECTURE, img_size=SIDE_PX, num_classes=0, dynamic_img_size=True, **SHAPE)
    before = _core_seconds()
    lightly_train.pretrain(
        out=given.out / "run",
        data=images,
        model=network,
        method="dino",
        epochs=given.epochs,
        batch_size=BATCH,
        num_workers=1,
        devices=1,
        accelerator="cpu",
        precision="32-true",
        seed=given.seed,
        transform_args={"image_size": (SIDE_PX, SIDE_PX), "local_view": {"view_size": (LOCAL_PX, LOCAL_PX)}},
    )
    encoder = build_encoder(ARCHITECTURE, SIDE_PX, **SHAPE)
    encoder.load_state_dict(torch.load(given.out / "run" / EXPORTED, weights_only=True))
    save_encoder(encoder, given.out / ENCODER)
    seconds = _core_seconds() - before
    print(f"wrote {given.out / ENCODER}: {given.epochs} epochs, {seconds:.0f} seconds of the cores")


def _write_images(source: str, folder: Path) -> None:
    """The training images as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, sample in enumerate(open_data(source).to_train().samples):
        path = folder / f"{i:06d}.jpg"
        if not path.exists():
            image, _ = decode_sample(sample)
            image.save(path, quality=95)


def _core_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
