"""Pre-training: the whole method of arXiv 2409.18877."""
