#!/usr/bin/env python3
"""Score conversations with every member of the ensemble and write the blended submission."""

import sys

from lmsys_ray.commands import DONE_WITH_REJECTS, run_command, score_parser, score_settings


def main() -> int:
    arguments = score_parser().parse_args()
    settings = score_settings(arguments)
    # Imported once the settings are known to be right: Ray takes seconds to load.
    from lmsys_ray import preflight
    from lmsys_ray.progress import Display
    from lmsys_ray.run import RunDirectory
    from lmsys_ray.scoring import score
    from lmsys_ray.summary import summary

    settings = preflight.checked(settings)
    with Display() as display:
        report = score(settings, display)
    for line in summary(report, settings, RunDirectory(settings.output)):
        print(line)
    return DONE_WITH_REJECTS if arguments.strict and report.rejects else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
