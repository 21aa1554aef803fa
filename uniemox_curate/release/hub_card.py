"""Parts of a release that the Hugging Face hub reads: the header of README.md, and a table of labels by each split."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from uniemox_curate.release.config import ReleaseConfig, ReleasedImage

METADATA = "metadata.jsonl"
# Names of splits on the hub, where they differ.
SPLITS = {"val": "validation"}
# Numbers of images from which the next name of a size applies (https://github.com/huggingface/hub-docs).
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
LARGEST = "1M<n<10M"
# Names of licences on the hub that labels and images may have; all others are `other`.
LICENCES = frozenset(
    (
        *("cc0-1.0", "pddl", "odc-by", "odbl", "c-uda", "etalab-2.0", "mit", "apache-2.0"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0"),
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
        *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
        *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0"),
    )
)


def hub_licence(licence: str) -> str:
    """Return the name of a licence in the form of the hub, which it may not know.

    >>> hub_licence("CC-BY-4.0"), hub_licence("by 2.0"), hub_licence("CC0 1.0"), hub_licence("My Terms, 2026")
    ('cc-by-4.0', 'cc-by-2.0', 'cc0-1.0', 'my-terms-2026')
    """
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-.")
    return f"cc-{name}" if name.startswith("by-") else name


def licence_fields(config: ReleaseConfig, images: Iterable[str]) -> dict[str, str]:
    """Return the fields of the header that name the licence; none if the publisher has not decided.

    Args:
        config: Texts of the release; its licence is that of labels and texts.
        images: Licences of the images, which they keep.
    """
    if not config.licence:
        return {}
    name = hub_licence(config.licence)
    if {hub_licence(licence) for licence in images} == {name} and name in LICENCES:
        return {"license": name}
    return {"license": "other", "license_name": f"{name}-and-licences-of-the-images", "license_link": "licences.md"}


def hub_header(config: ReleaseConfig, rows: Sequence[Mapping[str, str]], licences: Iterable[str]) -> str:
    """Return the YAML header of README.md (https://huggingface.co/docs/hub/datasets-cards).

    Args:
        config: Texts of the release.
        rows: Rows of labels.csv.
        licences: Licences of the images.
    """
    splits = sorted({row["split"] for row in rows}, key=("train", "val", "test").index)
    data_files = [{"split": SPLITS.get(split, split), "path": f"pictures/{split}/**"} for split in splits]
    fields = {
        "pretty_name": config.name,
        **licence_fields(config, licences),
        "task_categories": ["image-classification"],
        "size_categories": [_size(len(rows))],
        "tags": ["emotion", "affective-computing"],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    # JSON is YAML.
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    return "\n".join(["---", *lines, "---", "", ""])


def metadata_tables(images: Iterable[ReleasedImage]) -> dict[str, str]:
    """Return the tables of labels that `datasets` reads beside images, by their path below the folder of images.

    It takes the innermost folder of an image for its label otherwise, which may be a style. Lines of JSON keep the type
    of an empty text, which all splits must have in common.
    """
    tables: dict[str, list[str]] = {}
    for image in images:
        file = PurePosixPath(image.path).relative_to(image.split)
        row = {"file_name": str(file), "label": image.label, "domain": image.style}
        tables.setdefault(image.split, []).append(json.dumps(row, ensure_ascii=False) + "\n")
    return {f"{split}/{METADATA}": "".join(lines) for split, lines in tables.items()}


def _size(count: int) -> str:
    for limit, name in SIZES.items():
        if count < limit:
            return name
    return LARGEST
