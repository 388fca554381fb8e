"""Judge a finished run against labels, and fit the weights and the temperature of its blend."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import output_path


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Judge a run's members and blend against labels, with intervals, and fit the blend.",
        [
            "--run runs/today",
            "--run runs/today --labels labels.csv",
            "--run s3://bucket/runs/today --labels labels.csv --output judged",
        ],
        "Rows that a member was trained on flatter it: give labels it has not seen. Writes evaluation.json, "
        "reliability.png and blend.yaml. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_run(f"run directory that {_score_command(prog)} finished")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="id, winner_model_a, winner_model_b, winner_tie, and source where there is one: .csv .jsonl .parquet; "
        "default: the labels that the run's rows carry",
    )
    parser.add_argument("--output", metavar="DIR", help="default: RUN_DIR/evaluation")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "evaluate.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    # Imported once the command is known to be right: these take a second to load.
    from lmsys_ray.evaluation.carried_labels import labels_for
    from lmsys_ray.evaluation.console import show
    from lmsys_ray.evaluation.evaluate import evaluate
    from lmsys_ray.evaluation.labelled_scores import join, settings_of
    from lmsys_ray.evaluation.report import check_replaceable, write_report
    from lmsys_ray.evaluation.trained_rows import seen_in_training
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.scoring.progress import Display
    from lmsys_ray.storage.files import path_of

    run = RunDirectory(output_path(arguments.run))
    settings = settings_of(run)
    folder = path_of(output_path(arguments.output)) if arguments.output else run.path / "evaluation"
    with Display() as display:
        with display.during("labels and scores"):
            labels = labels_for(run, arguments.labels)
            judged_by = labels.digest()
            check_replaceable(folder, judged_by)
            joined = join(run, settings, labels)
            seen = seen_in_training(run, settings, joined.members)
        with display.during("intervals and fitted blends"):
            evaluation = evaluate(joined, settings, seen)
            write_report(evaluation, settings, run, folder, judged_by)
    show(evaluation, folder, _score_command(prog))


def _score_command(prog: str) -> str:
    """Returns how the command that scores is called where this one is called `prog`."""
    return prog.replace("evaluate", "score")
