"""Explanation of predictions: the parts of the image that support a label."""
