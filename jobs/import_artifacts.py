#!/usr/bin/env python3
"""Convert the artefacts of a notebook into those that score.py reads."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.import_artifacts import main

if __name__ == "__main__":
    sys.exit(run_command(main))
