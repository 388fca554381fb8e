"""The parsers of all commands: one look of --help, with examples, --version, and a word on unknown flags."""

import argparse
import difflib
import textwrap
from collections.abc import Sequence
from typing import Any

from lmsys_ray import __version__

_WIDTH = 96


class CommandParser(argparse.ArgumentParser):
    """A parser that tells which flag may have been meant, and takes a run directory with --run or without."""

    _takes_run = False

    def add_run(self, description: str) -> None:
        """Adds the flag --run, which is needed, but may be left out before the directory."""
        # A positional argument that may be missing is lost behind flags before Python 3.12.
        self.add_argument("--run", metavar="RUN_DIR", help=f"{description}; the flag may be left out")
        self._takes_run = True

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Returns the arguments; ends the process with exit code 2 where a flag is unknown."""
        found, unknown = self.parse_known_args(args, namespace)
        if self._takes_run and found.run is None:
            found.run = next((given for given in unknown if not given.startswith("-")), None)
            if found.run is not None:
                unknown.remove(found.run)
        if unknown:
            self.error(self._about(unknown))
        if self._takes_run and found.run is None:
            self.error("a run directory is needed: --run RUN_DIR")
        return found

    def _about(self, unknown: Sequence[str]) -> str:
        """Returns a sentence about arguments that no flag takes."""
        flag, _, value = next((given for given in unknown if given.startswith("--")), unknown[0]).partition("=")
        if not flag.startswith("--"):
            return f"nothing takes the arguments {' '.join(unknown)}; see --help"
        near = difflib.get_close_matches(flag, self._option_string_actions, 1, cutoff=0.7)
        if near:
            return f"{flag} is not a flag; did you mean {near[0]}?"
        if "--set" in self._option_string_actions:
            return f"{flag} is not a flag; see --help, and give settings as --set {flag[2:]}={value or 'VALUE'}"
        return f"{flag} is not a flag; see --help"


def command_parser(prog: str, description: str, examples: Sequence[str], notes: str) -> CommandParser:
    """Returns a parser without flags but --help and --version; each of `examples` follows the program's name."""
    lines = [f"  {prog} {example}".rstrip() for example in examples]
    parser = CommandParser(
        prog=prog,
        description=textwrap.fill(description, _WIDTH),
        epilog="\n".join(["examples:", *lines, "", textwrap.fill(notes, _WIDTH)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lmsys-ray {__version__}")
    return parser
