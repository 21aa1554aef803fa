"""`python -m uniemox`, which is also how torchrun starts it."""

from uniemox.cli import main

main()
