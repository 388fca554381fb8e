"""What Ray itself has to say to a driver, kept off the terminal.

Ray prints errors of its processes, in colour and over many lines, to standard output, also into files and between lines
of `--log json`. What matters of them is said in this package's own sentences: deaths of workers are counted, and a
raylet's ends the command.
"""

import logging
from collections.abc import Mapping
from typing import Any

from ray._private import worker as ray_worker

_log = logging.getLogger("lmsys_ray.ray")


def to_logging() -> None:
    """Hands such messages to Python's logging, as information, instead of printing them; call it before `ray.init`."""
    ray_worker.print_to_stdstream = _logged  # no setting of Ray turns the listener off


def _logged(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        _log.info("%s: %s", data["pid"], line)
