"""Files whose answer to a picture would depend on the others of its batch: they are shown one picture at a time.

Matrix products in 8 bits whose ranges are measured as they run (DynamicQuantizeLinear) have one range for the whole
batch, so that a picture of strong contrast moves the answers to those beside it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.onnx_sessions import InferenceSession

ONE_BY_ONE = "uniemox_one_by_one"  # key of a file's metadata; that it is there says it


def is_one_by_one(session: InferenceSession) -> bool:
    """Whether a file says that it takes one picture at a time."""
    return ONE_BY_ONE in session.get_modelmeta().custom_metadata_map


def run_views(
    session: InferenceSession, output: str, views: Mapping[str, NDArray[np.float32]], *, one_by_one: bool
) -> NDArray[Any]:
    """An output, (N, ...), for views by name, (N, 3, S, S) each.

    one_by_one: of `is_one_by_one`.  Raises one of RUNTIME_ERRORS if it does not run.
    """
    count = len(next(iter(views.values())))
    if not one_by_one or count < 2:
        [values] = session.run([output], dict(views))
        return values
    parts = [session.run([output], {name: view[i : i + 1] for name, view in views.items()})[0] for i in range(count)]
    return np.concatenate(parts)
