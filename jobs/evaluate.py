#!/usr/bin/env python3
"""Judge a finished run against labels, and fit the weights and the temperature of its blend."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(run_command(main))
