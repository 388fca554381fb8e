#!/usr/bin/env python3
"""Fine-tune a LoRA adapter on labelled preferences; the output is a PEFT directory that score.py loads."""

import argparse
import sys

from lmsys_ray.commands import run_command
from lmsys_ray.training.lora_settings import LoraOptions, LoraSettings
from lmsys_ray.training.options import options


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="train_lora.py",
        description="Fine-tune a LoRA adapter and a head of three labels on conversations with one-hot labels.",
        epilog="The same command goes on with a stopped training. Exit codes: 0 done, 1 failed, 2 wrong usage.",
    )
    parser.add_argument("--input", metavar="PATH", nargs="+", required=True, help="labelled .csv .jsonl .parquet")
    parser.add_argument("--output", metavar="DIR", required=True, help="the adapter's directory; must not be there yet")
    parser.add_argument("--model", required=True, help="backbone: directory, GGUF file, hub id or packaged name")
    parser.add_argument("--fold", metavar="K", type=int, default=0, help="fold held out; -1 trains on all rows")
    parser.add_argument("--set", metavar="key=value", action="append", default=[], dest="sets", help=_listed_options())
    return parser


def _listed_options() -> str:
    return f"any option; may be repeated: {', '.join(LoraOptions.model_fields)}"


def main() -> None:
    arguments = parser().parse_args()
    chosen = options(LoraOptions, arguments.sets)
    named = {"input": arguments.input, "output": arguments.output, "model": arguments.model, "fold": arguments.fold}
    settings = LoraSettings(**named, **chosen.model_dump())
    # Imported once the options are known to be right: torch and Ray take seconds to load.
    from lmsys_ray.training.lora import train_lora

    figures = train_lora(settings, say=lambda line: print(line, flush=True))
    if "adapter" in figures:
        for name in ("prior", "adapter"):
            loss, low, high = figures[name]["log_loss"].values()
            print(f"{name}: log loss {loss:.4f} ({low:.4f} to {high:.4f}) on the held-out rows")
    print(f"the adapter lies in {settings.output}")


if __name__ == "__main__":
    sys.exit(run_command(main))
