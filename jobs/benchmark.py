#!/usr/bin/env python3
"""Measure the Llama member, and the features of the LightGBM member, beside what else a user would run."""

import argparse
import sys
from pathlib import Path

from lmsys_ray.commands import run_command
from lmsys_ray.errors import UsageError


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmark.py",
        description="Score the same rows by every side in turns, each in a process of its own; print one table.",
        epilog="On a machine with a GPU the sides of a GPU run, with nothing else to set but --model-shape llama-3-8b.",
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
    parser.add_argument("--output", metavar="FILE", type=Path, default=Path("runs/benchmark.json"), help="JSON figures")
    return parser


def main() -> None:
    arguments = vars(parser().parse_args())
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

    settings = BenchmarkSettings.checked_from(given)
    found = benchmark(settings, say=lambda line: print(line, flush=True))
    show(found, torch.cuda.is_available())
    write(found, settings, torch.cuda.is_available(), output)
    print(f"figures: {output}")


if __name__ == "__main__":
    sys.exit(run_command(main))
