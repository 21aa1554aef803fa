"""Collect: search the sources, download politely, screen what a machine can see to be no image for the data set."""
