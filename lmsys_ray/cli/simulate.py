"""Show how well 2 to 128 replicas would be used: the real dispatch, with replicas that sleep instead of computing."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import local_output

SCENARIOS = ("even", "slow replica", "long tail")
DISPATCHES: tuple[Literal["dynamic", "static"], ...] = ("dynamic", "static")


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Simulate passes of a Llama member: each replica sleeps as long as its device would compute.",
        [
            "--tokens-per-second 15000",
            "--tokens-per-second 15000 --replicas 8 16 --rows 1000000",
            "--tokens-per-second 15000 --scenario 'slow replica' --input test.csv",
        ],
        "Writes simulation.json and simulation.png. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--output", metavar="DIR", type=local_output, default="runs/simulation")
    parser.add_argument("--input", metavar="FILE", default="packaged:sample.csv", help="gives the lengths of rows")
    parser.add_argument("--rows", metavar="N", type=int, default=100_000)
    parser.add_argument("--shard-rows", metavar="N", type=int, default=64)
    parser.add_argument("--replicas", metavar="N", type=int, nargs="+", default=[2, 8, 32, 128])
    parser.add_argument("--tokens-per-second", metavar="X", type=float, required=True, help="of one replica, measured")
    parser.add_argument("--start-seconds", metavar="X", type=float, default=0.0, help="until all replicas are ready")
    parser.add_argument("--model", default="packaged:smollm2-135m", help="whose tokenizer counts")
    parser.add_argument("--max-length", metavar="N", type=int, default=2048, help="tokens a row may have")
    parser.add_argument("--dispatch", choices=DISPATCHES, nargs="+", default=list(DISPATCHES))
    parser.add_argument("--scenario", choices=SCENARIOS, nargs="+", default=list(SCENARIOS))
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "simulate.py") -> None:
    """Runs the command."""
    arguments = parser(prog).parse_args(argv)
    from lmsys_ray.cluster.connect import ray_cluster
    from lmsys_ray.simulation.report import draw, show
    from lmsys_ray.simulation.simulate import row_tokens, shard_tokens, simulate
    from lmsys_ray.storage.files import atomic_file, make_folder, write_bytes

    make_folder(arguments.output)
    lengths = row_tokens(arguments.input, arguments.model, arguments.max_length)
    results = []
    with ray_cluster(allow_unauthenticated=True):  # it brings nothing that is to be kept from anybody
        for scenario in arguments.scenario:
            tokens = shard_tokens(lengths, arguments.rows, arguments.shard_rows, scenario)
            for replicas in arguments.replicas:
                for kind in arguments.dispatch:
                    used = simulate(
                        tokens, replicas, arguments.tokens_per_second, kind, scenario, arguments.start_seconds
                    )
                    results.append({"scenario": scenario, "dispatch": kind, **asdict(used)})
                    print(f"{scenario}, {replicas} replicas, {kind}: efficiency {used.efficiency:.1%}", flush=True)
    write_bytes(arguments.output / "simulation.json", (json.dumps(results, indent=1) + "\n").encode())
    with atomic_file(arguments.output / "simulation.png") as aside:
        draw(results, aside)
    show(results)
