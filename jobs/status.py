#!/usr/bin/env python3
"""Tell how far a run is, from its directory alone."""

import sys

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.status import main

if __name__ == "__main__":
    sys.exit(run_command(main))
