#!/usr/bin/env python3
"""Tell what a run will read, need, take and cost, without starting it."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.plan import main

if __name__ == "__main__":
    sys.exit(run_command(main))
