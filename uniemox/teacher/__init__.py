"""Frozen teachers: what Ω (images) and Λ (texts) come from."""
