"""Registered experiments: their plans, commands and stored outcomes."""
