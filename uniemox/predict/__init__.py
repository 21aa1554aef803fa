"""From a picture to a Prediction, with onnxruntime alone."""
