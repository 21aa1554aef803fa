"""Bytes on disk: files, images, tables, weights, ONNX sessions, pages; and parallel maps over them."""
