#!/usr/bin/env python3
"""The former name of train_classifier.py, which does the same."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.train_lora import main

if __name__ == "__main__":
    sys.exit(run_command(main))
