"""Measure the Llama member, and the features of the LightGBM member, beside what else a user would run."""

import argparse
from collections.abc import Sequence

from lmsys_ray.cli.parsing import command_parser
from lmsys_ray.config.output_root import local_output
from lmsys_ray.errors import UsageError
from lmsys_ray.printable import say


def parser(prog: str) -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = command_parser(
        prog,
        "Score the same rows by every side in turns, each in a process of its own; print one table.",
        [
            "",
            "--model-shape llama-3-8b --rows 64",
            "--input test.csv --threads 1 --clock processor --sides packed sorted",
        ],
        "On a machine with a GPU the sides of a GPU run, with nothing else to set but --model-shape llama-3-8b.",
    )
    parser.add_argument("--input", metavar="PATH", nargs="+", help="conversations; default: the packaged sample")
    parser.add_argument("--model", help="base model; default: packaged SmolLM2-135M with its packaged adapter")
    parser.add_argument("--adapter", help="PEFT directory, with --model")
    parser.add_argument("--model-shape", metavar="NAME", help="random weights: llama-3-8b or smollm2-135m")
    parser.add_argument("--max-length", metavar="N", type=int, help="tokens a row may have; default: 512")
    parser.add_argument("--rows", metavar="N", type=int, help="rows to score; default: 16, on a GPU 128")
    parser.add_argument("--repeats", metavar="N", type=int, help="rounds; default: 3")
    parser.add_argument("--sides", metavar="NAME", nargs="+", help="which sides; default: those that suit the device")
    parser.add_argument("--threads", metavar="N", type=int, help="CPU cores; default: all")
    parser.add_argument(
        "--clock", metavar="NAME", help="wall, or processor: with --threads 1, on a machine that does other work"
    )
    parser.add_argument("--batch-tokens", metavar="N", type=int, help="token budget of a packed micro-batch")
    parser.add_argument("--vllm-python", metavar="FILE", help="the Python of an environment where vLLM is installed")
    parser.add_argument("--no-features", action="store_false", dest="features", help="leave the LightGBM features out")
    parser.add_argument("--job-rows", metavar="N", type=int, help="run a whole job of so many rows too, in every round")
    parser.add_argument(
        "--reward-rows",
        metavar="N",
        type=int,
        help="measure too, on so many rows, what a prompt computed once saves a reward model: rows whose prompt has "
        "half of the tokens or more; default: none",
    )
    parser.add_argument(
        "--encoder-rows",
        metavar="N",
        type=int,
        help="measure too, on so many rows, an encoder of MiniLM's sizes: sorted rows against rows padded to 512 "
        "tokens; default: none",
    )
    parser.add_argument("--output", metavar="FILE", type=local_output, default="runs/benchmark.json", help="figures")
    return parser


def main(argv: Sequence[str] | None = None, prog: str = "benchmark.py") -> None:
    """Runs the command."""
    arguments = vars(parser(prog).parse_args(argv))
    output = arguments.pop("output")
    given = {name: value for name, value in arguments.items() if value is not None}
    if "model" in given:
        given.setdefault("adapter", None)
    elif "adapter" in given:
        raise UsageError("--adapter needs --model, the model that it was trained on")
    # Imported once the command is known to be right: these take seconds to load.
    import torch

    from lmsys_ray.benchmark.benchmark import benchmark
    from lmsys_ray.benchmark.settings import BenchmarkSettings
    from lmsys_ray.benchmark.table import show, write
    from lmsys_ray.storage.files import make_folder

    settings = BenchmarkSettings.checked_from(given)
    make_folder(output.parent)
    found = benchmark(settings, say=say)
    show(found, torch.cuda.is_available())
    write(found, settings, torch.cuda.is_available(), output)
    print(f"figures: {output}")
