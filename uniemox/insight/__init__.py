"""Explanations, surveys and searches, built on predictions."""
