"""The command `uniemox curate`."""
