"""Importing this makes torch list its ONNX operators once a process, and not in every export, of which it is a quarter."""

import functools

from torch.onnx._internal.exporter._registration import ONNXRegistry

# Nothing changes the list: exports of this project have no operators of their own.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
