#!/usr/bin/env python3
"""Train a shared encoder on labelled preferences; the output is a directory that score.py loads."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.train_shared_encoder import main

if __name__ == "__main__":
    sys.exit(run_command(main))
