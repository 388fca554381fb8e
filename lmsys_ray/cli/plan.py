"""Tell what a run will read, need, take and cost, without starting it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmsys_ray.cli import score
from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.printable import say

if TYPE_CHECKING:
    from lmsys_ray.planning.plan import Plan
    from lmsys_ray.scoring.progress import Log


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Tell what a run will read, load, take and cost, by the flags of score. Nothing is started, and nothing is "
        "written into the output.",
        [
            "--input test.csv --probe 64",
            "--config run.yaml --gpu H100 --gpus 8 --price 2.5",
            "--config run.yaml --gpu L4 --deadline 8h --json",
        ],
        "A speed is measured by --probe, or assumed of a GPU. Exit codes: 0 told; 1 failed; 2 wrong usage; 3 told, but "
        "rows would be rejected or warned of (with --strict).",
    )
    score.add_run_flags(parser)
    parser.add_argument("--sample", metavar="N", type=int, default=2000, help="rows that are tokenized (2000)")
    parser.add_argument("--whole", action="store_true", help="read an input of more than 1 GiB to its end")
    parser.add_argument("--probe", metavar="N", type=int, help="load each member here and score N rows, for its speed")
    parser.add_argument("--gpu", metavar="NAME", help="plan for T4 L4 A10G A100-40 A100-80 H100 H200 B200")
    parser.add_argument("--gpus", metavar="N", type=int, help="how many GPUs the run has")
    parser.add_argument("--price", metavar="X", type=float, help="of one GPU for one hour")
    parser.add_argument("--deadline", metavar="TIME", help="such as 8h or 90m: how many GPUs meet it")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "plan.py") -> int:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    with contextlib.redirect_stdout(sys.stderr):  # standard output has the plan alone
        plan = _plan(arguments)
    from lmsys_ray.planning.as_json import as_dict
    from lmsys_ray.planning.text import show

    if arguments.json:
        say(json.dumps(as_dict(plan), ensure_ascii=True))
    else:
        show(plan)
    found = plan.input.rejects or plan.input.warnings
    return score.DONE_WITH_REJECTS if arguments.strict and found else 0


def _plan(arguments: argparse.Namespace) -> Plan:
    from lmsys_ray.planning.options import Options, gpu_named, seconds_of

    options = Options(
        sample=arguments.sample,
        whole=arguments.whole,
        probe=arguments.probe,
        gpu=gpu_named(arguments.gpu),
        gpus=arguments.gpus,
        price=arguments.price,
        deadline=seconds_of(arguments.deadline),
    )
    from lmsys_ray.scoring.progress import Display

    os.environ["OMP_NUM_THREADS"] = "1"  # as in Ray's actors, for --probe; torch reads it when it is imported
    log: Log = "quiet" if arguments.quiet else arguments.log
    with Display(log) as display:
        with display.during("settings"):  # they may lie in a storage that hangs
            settings = score.score_settings(arguments, display.say, starts=False)
        # Imported once the settings are known to be right: torch takes seconds to load.
        from lmsys_ray.planning.plan import make_plan
        from lmsys_ray.scoring import preflight

        with display.during("check of the input and the models"):
            settings = preflight.check(settings)
        return make_plan(settings, options, display)
