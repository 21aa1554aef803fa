"""Explanations, surveys and searches: what is made of predictions."""
