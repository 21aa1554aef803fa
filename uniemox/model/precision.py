"""In which numbers a device multiplies matrices fast."""

import torch

from uniemox.model.config import Precision


def fast_precision(device: str | None = None) -> Precision:
    """bfloat16 on a GPU and on processors that multiply it (AVX-512, AMX, newer Arm), float32 on all others.

    device: cpu or cuda; None: a GPU if there is one.
    Without such instructions bfloat16 works too, but 60 times slower than float32 (an AMD EPYC with AVX2).
    """
    # Private, but the one place where torch says what its CPU kernels can do.
    is_gpu = torch.cuda.is_available() if device is None else device == "cuda"
    is_fast = is_gpu or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bfloat16" if is_fast else "float32"
