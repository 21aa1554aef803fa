"""Checks and measurements for the first minutes on a machine with one GPU; see README.md in this folder."""
