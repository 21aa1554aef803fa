"""Emotions as keywords in XMP sidecar files."""
