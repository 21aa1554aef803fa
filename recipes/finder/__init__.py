"""The person finder: a small network that finds people, trained, scored and written as ONNX."""
