#!/usr/bin/env python3
"""Make the page about a run, finished or not: report.html."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.report import main

if __name__ == "__main__":
    sys.exit(run_command(main))
