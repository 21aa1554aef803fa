"""Load tests, fuzzers, measurements and build scripts: python -m tools.NAME."""
