"""Add perceptual hashes to models in the package that were built before there were any.

    python -m recipes.perceptual_hashes --rated oasis/images emotion6/images -- fi/train fi_more/train flickr8k_more

The models have the hashes of the files, by which the images are recognised. A new build has both kinds of hashes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from uniemox.data.hashes import Fingerprint, fingerprints
from uniemox.data.perceptual import PREFIX
from uniemox.data.sample import ImageFile, Sample
from uniemox.data.seen import SEEN, read_seen, write_hashes
from uniemox.evaluate.recalibration import open_file, write_model
from uniemox.predict.ratings import HASH_DIGITS

PACKAGE = Path("uniemox") / "predict" / "embedded"
RATED_MODELS = ("embedded", "small")


def found_in(folders: list[Path]) -> list[Fingerprint]:
    """Return the fingerprints of all JPEG files below the folders."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*.jpg"))]
    return fingerprints([Sample(key=str(path), image=ImageFile(path)) for path in paths])[0]


def perceptual(fingerprint: Fingerprint) -> set[str]:
    """Return the perceptual hash of an image; empty for an image without structure."""
    return {digest for digest in fingerprint.hashes if digest.startswith(PREFIX)}


def main() -> None:
    """Update the file of hashes, and the metadata of the models with ratings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with the training images")
    parser.add_argument("--rated", nargs="+", type=Path, required=True, help="folders with the rated images")
    args = parser.parse_args()
    hashes = {digest for digest in read_seen(PACKAGE) if not digest.startswith(PREFIX)}
    trained = [fingerprint for fingerprint in found_in(args.folders) if fingerprint.sha256 in hashes]
    print(f"{len({fingerprint.sha256 for fingerprint in trained})} of {len(hashes)} training images are there")
    write_hashes(PACKAGE / SEEN, hashes.union(*map(perceptual, trained)))
    rated = found_in(args.rated)
    for name in RATED_MODELS:
        source, network = open_file(name)
        head = network.rating_head
        assert head is not None
        images = [fingerprint for fingerprint in rated if fingerprint.sha256[:HASH_DIGITS] in head.seen]
        digits = set[str]().union(*map(perceptual, images))
        print(f"{name}: {len(images)} of {len(head.seen)} rated images are there")
        values = head.to_dict() | {"perceptual": "".join(sorted(digest.removeprefix(PREFIX) for digest in digits))}
        write_model(source, source, replace(network.info, ratings=values).to_json())


if __name__ == "__main__":
    main()
