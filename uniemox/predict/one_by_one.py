"""Files whose answer to an image would depend on the others of its batch: they are shown one image at a time.

Matrix products in 8 bits whose ranges are measured as they run (DynamicQuantizeLinear) have one range for the whole
batch, so that an image of strong contrast moves the answers to those beside it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.io.onnx_sessions import InferenceSession, Session

ONE_BY_ONE = "uniemox_one_by_one"  # key of a file's metadata; that it is there says it


def is_one_by_one(session: InferenceSession) -> bool:
    """Whether a file says that it takes one image at a time."""
    return ONE_BY_ONE in session.get_modelmeta().custom_metadata_map


def run_views(
    session: InferenceSession | Session,
    outputs: Sequence[str],
    views: Mapping[str, NDArray[np.float32]],
    *,
    one_by_one: bool,
) -> list[NDArray[Any]]:
    """Outputs by name, (N, ...) each, for views by name, (N, 3, S, S) each.

    one_by_one: of `is_one_by_one`.  Raises one of RUNTIME_ERRORS if it does not run.
    """
    count = len(next(iter(views.values())))
    if not one_by_one or count < 2:
        return session.run(list(outputs), dict(views))
    parts = [session.run(list(outputs), {name: view[i : i + 1] for name, view in views.items()}) for i in range(count)]
    return [np.concatenate(of_all) for of_all in zip(*parts, strict=True)]
