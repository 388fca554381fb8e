"""The parsers of all commands: the same look of --help, with examples, and --version."""

import argparse
import textwrap
from collections.abc import Sequence

from lmsys_ray import __version__

_WIDTH = 96


def command_parser(prog: str, description: str, examples: Sequence[str], notes: str) -> argparse.ArgumentParser:
    """Returns a parser without flags but --help and --version; each of `examples` follows the program's name."""
    lines = [f"  {prog} {example}".rstrip() for example in examples]
    parser = argparse.ArgumentParser(
        prog=prog,
        description=textwrap.fill(description, _WIDTH),
        epilog="\n".join(["examples:", *lines, "", textwrap.fill(notes, _WIDTH)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lmsys-ray {__version__}")
    return parser
