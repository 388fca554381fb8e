#!/usr/bin/env python3
"""Score conversations with every member of the ensemble and write the blended submission."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.score import main

if __name__ == "__main__":
    sys.exit(run_command(main))
