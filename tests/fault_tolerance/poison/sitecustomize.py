"""Put on PYTHONPATH by tests: in Ray's workers, members meet rows that end their process.

Python imports this module at its start; the package itself knows nothing of it. A prompt that holds `KILLS-SCORE` or
`KILLS-ENCODE` ends the process at that step as the kernel does when memory is short, a file whose name begins with
`kills-read` the process that reads it; `HANGS-ONCE` stops all threads of the first process that scores it. Each
`EATS-MEMORY` among the prompts scored at once takes `EATEN_BYTES` for a while.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    from lmsys_ray.data import readers
    from lmsys_ray.members import registry

    EATEN_AT_ONCE = 64 << 20

    def prompts(rows):  # type: ignore[no-untyped-def]
        """A Llama member's encoded rows have none."""
        return " ".join(rows["prompt"].to_pylist()) if "prompt" in rows.column_names else ""

    def die_at(word, rows):  # type: ignore[no-untyped-def]
        if word in prompts(rows):
            os.kill(os.getpid(), signal.SIGKILL)

    def eat(rows):  # type: ignore[no-untyped-def]
        wanted = prompts(rows).count("EATS-MEMORY") * int(os.environ.get("EATEN_BYTES", "0"))
        eaten = []
        while wanted > len(eaten) * EATEN_AT_ONCE:
            eaten.append(b"x" * EATEN_AT_ONCE)
            time.sleep(0.02)  # so that whoever watches memory can see it coming
        time.sleep(3 * bool(wanted))

    class Poisoned:
        """A kind of member whose encoder and scorer read the words above."""

        def __init__(self, kind):  # type: ignore[no-untyped-def]
            self.kind = kind

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            return getattr(self.kind, name)

        def encoder(self, settings, cells):  # type: ignore[no-untyped-def]
            encoder = self.kind.encoder(settings, cells)

            def poisoned(rows):  # type: ignore[no-untyped-def]
                die_at("KILLS-ENCODE", rows)
                return encoder.encode(rows) if encoder else rows

            return SimpleNamespace(encode=poisoned)

        def scorer(self, settings, cells):  # type: ignore[no-untyped-def]
            scorer = self.kind.scorer(settings, cells)
            score = scorer.score

            def poisoned(rows):  # type: ignore[no-untyped-def]
                die_at("KILLS-SCORE", rows)
                eat(rows)
                flag = Path(os.environ["HANG_FLAG"])
                if "HANGS-ONCE" in prompts(rows) and not flag.exists():
                    flag.touch()
                    os.kill(os.getpid(), signal.SIGSTOP)
                return score(rows)

            scorer.score = poisoned
            return scorer

    read_rows = readers.read_rows

    def read_poisoned_rows(path, *arguments, **options):  # type: ignore[no-untyped-def]
        if Path(path).name.startswith("kills-read"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read_rows(path, *arguments, **options)

    readers.read_rows = read_poisoned_rows
    kind_named = registry.kind_named
    registry.kind_named = lambda name: Poisoned(kind_named(name))
