#!/usr/bin/env python3
"""Measure the Llama member, and the features of the LightGBM member, beside what else a user would run."""

import sys

try:
    from lmsys_ray.cli.benchmark import main
    from lmsys_ray.cli.command import run_command
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
