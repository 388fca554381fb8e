#!/usr/bin/env python3
"""Score conversations with every member of the ensemble and write the blended submission."""

import sys

try:
    from lmsys_ray.cli.command import run_command
    from lmsys_ray.cli.score import main
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
