"""Lines of a survey that no model has made."""

import json

import numpy as np

from uniemox.insight.features import pack


class Everything:
    """Contains any path."""

    def __contains__(self, path: object) -> bool:
        return True


def line(number: int, **fields: object) -> str:
    """A prediction in JSON form: awe grows with the last digit of the number, fear falls."""
    features = np.random.default_rng(number).standard_normal(64).astype(np.float32)
    answer = {"scene": {"awe": (number % 10) / 10, "fear": 1 - (number % 10) / 10}, "kind": "evoked", "model": "m"}
    other_fields = {"path": f"a/{number}.jpg", "label_set": "x", "features": pack(features), "taken": None}
    return json.dumps(answer | other_fields | fields) + "\n"
