"""Importing this makes torch list its ONNX operators once a process: an export spends a quarter of its time on that."""

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry

# Nothing changes the list: exports of this project have no operators of their own.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]
