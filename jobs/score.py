#!/usr/bin/env python3
"""Score conversations with every member of the ensemble and write the blended submission."""

import sys

from lmsys_ray.commands import run_command, score_parser, score_settings


def main() -> None:
    settings = score_settings(score_parser().parse_args())
    # Imported once the settings are known to be right: Ray takes seconds to load.
    from lmsys_ray import preflight
    from lmsys_ray.progress import Display
    from lmsys_ray.run import RunDirectory
    from lmsys_ray.scoring import score
    from lmsys_ray.summary import summary

    preflight.check(settings)
    with Display() as display:
        report = score(settings, display)
    for line in summary(report, settings, RunDirectory(settings.output)):
        print(line)


if __name__ == "__main__":
    sys.exit(run_command(main))
