"""Put on PYTHONPATH by tests: Llama replicas wait for each other, so that a test may take its time with the nodes.

Python imports this module at its start; the package itself knows nothing of it. Each replica leaves a file named after
its node in the directory `GATE` once its model is loaded. It scores `FREE_SHARDS` shards, all others only when the file
`open` lies there too, and slowly enough for each replica to get its share.
"""

import os
import sys
import time
from itertools import count
from pathlib import Path

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    from lmsys_ray.members import registry

    class Gated:
        """A kind of member whose scorer waits at the gate."""

        def __init__(self, kind):  # type: ignore[no-untyped-def]
            self.kind = kind

        def __getattr__(self, name):  # type: ignore[no-untyped-def]
            return getattr(self.kind, name)

        def scorer(self, settings, cells):  # type: ignore[no-untyped-def]
            import ray

            scorer = self.kind.scorer(settings, cells)
            score = scorer.score
            gate = Path(os.environ["GATE"])
            (gate / f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()

            shards = count()

            def gated(rows):  # type: ignore[no-untyped-def]
                free = next(shards) < int(os.environ["FREE_SHARDS"])
                while not free and not (gate / "open").exists():
                    time.sleep(0.05)
                time.sleep(0.2)
                return score(rows)

            scorer.score = gated
            return scorer

    kind_named = registry.kind_named
    registry.kind_named = lambda name: (Gated if name == "classifier" else lambda kind: kind)(kind_named(name))
