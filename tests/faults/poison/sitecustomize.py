"""Put on PYTHONPATH by tests: in Ray's workers, members meet rows that end their process.

Python imports this module at its start; the package itself knows nothing of it. A prompt that holds `KILLS-SCORE` or
`KILLS-ENCODE` ends the process at that step as the kernel does when memory is short; `HANGS-ONCE` stops all threads of
the first process that scores it. Each `EATS-MEMORY` among the prompts scored at once takes `EATEN_BYTES` for a while.
"""

import os
import signal
import sys
import time
from pathlib import Path

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    from lmsys_ray import members

    EATEN_AT_ONCE = 64 << 20
    make_scorer, make_encoder = members.make_scorer, members.make_encoder

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

    def make_poisoned_encoder(settings, cells):  # type: ignore[no-untyped-def]
        encode = make_encoder(settings, cells)

        def poisoned(rows):  # type: ignore[no-untyped-def]
            die_at("KILLS-ENCODE", rows)
            return encode(rows)

        return poisoned

    def make_poisoned_scorer(settings, cells):  # type: ignore[no-untyped-def]
        scorer = make_scorer(settings, cells)
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

    members.make_scorer, members.make_encoder = make_poisoned_scorer, make_poisoned_encoder
