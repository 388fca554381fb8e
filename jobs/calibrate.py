#!/usr/bin/env python3
"""Fit links, weights, temperature and the kind of blend of a finished run to labels, as settings for score.py."""

import sys

try:
    from lmsys_ray.cli.calibrate import main
    from lmsys_ray.cli.command import run_command
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
