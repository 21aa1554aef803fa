"""The release as tasks of Label Studio, to look at or to go on labelling there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemox.curate.release.run import ReleasedImage


def label_studio(rows: "Sequence[ReleasedImage]") -> list[dict[str, Any]]:
    """Tasks with their label as an annotation; images are served from Label Studio's local storage.

    Its project needs <Image name="image" value="$image"/> and <Choices name="emotion" toName="image">.
    """
    return [
        {
            "id": number,
            "data": {
                "image": f"/data/local-files/?d=pictures/{row.path}",
                "sha256": row.sha256,
                "split": row.split,
                "style": row.style,
                "address": row.about.get("address", ""),
                "licence": row.about.get("licence", ""),
                "decided": row.decided,
            },
            "annotations": [
                {
                    "result": [
                        {
                            "id": row.sha256[:10],
                            "from_name": "emotion",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [row.label]},
                        }
                    ],
                    "was_cancelled": False,
                    "ground_truth": True,
                }
            ],
        }
        for number, row in enumerate(rows, start=1)
    ]
