#!/usr/bin/env python3
"""Fine-tune a classifier on labelled preferences: a LoRA adapter, or all weights; score.py reads the output."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.train_classifier import main

if __name__ == "__main__":
    sys.exit(run_command(main))
