"""Fit everything between scores and probabilities to labels, and write it as settings for the command that scores."""

import argparse
import shlex
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import output_path
from lmsys_ray.printable import say


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    score = _score_command(prog)
    parser = command_parser(
        prog,
        "Fit the links of two scores, weights, temperature, share of the class prior and the kind of blend "
        "of a finished run to labels, judge each kind out of fold, and write the chosen one as settings.",
        [
            "--run runs/today",
            "--run runs/today --labels labels.csv",
            "--run runs/today --labels labels.csv --output calibration.yaml",
        ],
        f"Rows that a member was trained on flatter it: give labels it has not seen. {score} --config RUN.yaml "
        "--config CALIBRATION.yaml blends a finished run anew, without scoring anything again, or scores other input. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_run(f"run directory that {score} finished")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="id, winner_model_a, winner_model_b, winner_tie: .csv .jsonl .parquet; default: the labels that the run's "
        "rows carry",
    )
    parser.add_argument("--output", metavar="FILE", help="YAML file to write; default: RUN_DIR/calibration.yaml")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "calibrate.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    # Imported once the command is known to be right: these take a second to load.
    from lmsys_ray.evaluation.calibration import calibrate
    from lmsys_ray.evaluation.calibration_report import calibration_yaml, show
    from lmsys_ray.evaluation.carried_labels import labels_for
    from lmsys_ray.evaluation.labelled_scores import join, settings_of
    from lmsys_ray.evaluation.trained_rows import seen_in_training, warnings
    from lmsys_ray.run_directory.layout import RunDirectory
    from lmsys_ray.scoring.progress import Display
    from lmsys_ray.storage.files import make_folder, path_of, write_bytes

    run = RunDirectory(output_path(arguments.run))
    settings = settings_of(run)
    with Display() as display:
        with display.during("labels and scores"):
            joined = join(run, settings, labels_for(run, arguments.labels))
            seen = seen_in_training(run, settings, joined.members)
        with display.during("fits, each judged out of fold"):
            calibrated = calibrate(joined, settings)
    for warning in warnings(seen):
        say(f"warning: {warning}")
    file = path_of(output_path(arguments.output)) if arguments.output else run.path / "calibration.yaml"
    make_folder(file.parent)
    write_bytes(file, calibration_yaml(calibrated, settings).encode())
    again = ["--config", str(run.path / "settings.yaml"), "--config", str(file)]
    if settings.output != str(run.path):
        again += ["--output", str(run.path)]
    show(calibrated, f"{_score_command(prog)} {shlex.join(again)}")


def _score_command(prog: str) -> str:
    """Returns how the command that scores is called where this one is called `prog`."""
    return prog.replace("calibrate", "score")
