"""Pre-training: the whole method of arXiv 2409.18877."""

from uniemox.pretrain.step import PretrainBatch, pretrain_step

__all__ = ["PretrainBatch", "pretrain_step"]
