#!/usr/bin/env python3
"""Show how well 2 to 128 replicas would be used: the real dispatch, with replicas that sleep instead of computing."""

import sys

try:
    from lmsys_ray.cli.command import run_command
    from lmsys_ray.cli.simulate import main
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed for {sys.executable}; call the Python that README.md sets up")


if __name__ == "__main__":
    sys.exit(run_command(main))
