"""Base of methods that relate regions of an image, and CCIM, which every classifier can use."""
