"""Methods that the paper compares with, one per module: each relates regions of an image."""
