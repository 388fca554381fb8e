#!/usr/bin/env python3
"""Fit a LightGBM member on labelled preferences; the output is a directory of artefacts that score.py reads."""

import sys

try:
    from lmsys_ray.cli.command import run_command
    from lmsys_ray.cli.train_lightgbm import main
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
