"""From an image to a Prediction, with onnxruntime alone."""
