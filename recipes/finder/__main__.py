"""python -m recipes.finder fit --help."""

import sys

from recipes.finder.command import finder
from uniemox.cli import run_and_report_errors

run_and_report_errors(lambda: finder(sys.argv[1:], exit_on_error=False))
