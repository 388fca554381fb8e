#!/usr/bin/env python3
"""Tell what a run will read, need, take and cost, without starting it."""

import sys

try:
    from lmsys_ray.cli.command import run_command
    from lmsys_ray.cli.plan import main
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
