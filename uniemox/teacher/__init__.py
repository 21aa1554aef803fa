"""Frozen teachers, which compute Ω (images) and Λ (texts)."""
