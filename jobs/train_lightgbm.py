#!/usr/bin/env python3
"""Fit a LightGBM member on labelled preferences; the output is a directory of artefacts that score.py reads."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.train_lightgbm import main

if __name__ == "__main__":
    sys.exit(run_command(main))
