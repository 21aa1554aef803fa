"""Prediction: from an image to a Prediction, with onnxruntime and without torch."""
