#!/usr/bin/env python3
"""Make the leaderboard of a finished run anew: strengths of the models whose responses it compared."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.leaderboard import main

if __name__ == "__main__":
    sys.exit(run_command(main))
