"""Load tests and timings that only developers need: python -m benchmarks.NAME."""
