"""Entry point of `python -m uniemox`, which torchrun uses too."""

from uniemox.cli import main

main()
