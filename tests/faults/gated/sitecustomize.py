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
    from lmsys_ray import members

    make_scorer = members.make_scorer

    def make_gated_scorer(settings, cells):  # type: ignore[no-untyped-def]
        import ray

        scorer = make_scorer(settings, cells)
        if settings.kind != "llama":
            return scorer
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

    members.make_scorer = make_gated_scorer
