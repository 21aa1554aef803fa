"""Runs and their scores as one HTML page."""
