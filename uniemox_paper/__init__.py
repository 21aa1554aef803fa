"""Reproduction of the paper's tables, next to the paper's figures."""
