#!/usr/bin/env python3
"""Judge a finished run against labels, and fit the weights and the temperature of its blend."""

import argparse
import sys

from lmsys_ray.commands import run_command


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate.py",
        description="Judge a run's members and blend against labels, with intervals, and fit the blend.",
        epilog="Rows that a member was trained on flatter it: give labels it has not seen. Writes evaluation.json, "
        "reliability.png and blend.yaml. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--run", metavar="RUN_DIR", required=True, help="run directory that score.py finished")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        required=True,
        help="id, winner_model_a, winner_model_b, winner_tie, and source where there is one: .csv .jsonl .parquet",
    )
    parser.add_argument("--output", metavar="DIR", help="default: RUN_DIR/evaluation")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    # Imported once the command is known to be right: these take a second to load.
    from lmsys_ray.evaluation.evaluate import evaluate
    from lmsys_ray.evaluation.joined import join, settings_of
    from lmsys_ray.evaluation.labels import read_labels
    from lmsys_ray.evaluation.report import write_report
    from lmsys_ray.evaluation.tables import show
    from lmsys_ray.run import RunDirectory
    from lmsys_ray.storage import path_of

    run = RunDirectory(arguments.run)
    settings = settings_of(run)
    evaluation = evaluate(join(run, settings, read_labels(arguments.labels)), settings)
    folder = path_of(arguments.output) if arguments.output else run.path / "evaluation"
    write_report(evaluation, settings, run, folder)
    show(evaluation, folder)


if __name__ == "__main__":
    sys.exit(run_command(main))
