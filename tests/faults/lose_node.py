"""Scores on a cluster of three nodes, of which one is lost while its actor is at work. Run by a test."""

import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from lmsys_ray.commands import run_command, score_parser, score_settings
from lmsys_ray.progress import Display
from lmsys_ray.run import RunDirectory
from lmsys_ray.scoring import score
from lmsys_ray.summary import summary


def main() -> None:
    settings = score_settings(score_parser().parse_args())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    scores = Path(settings.output) / "scores" / "llama"

    def lose_one() -> None:
        while not scores.is_dir() or len(list(scores.glob("[0-9]*"))) < 6:
            time.sleep(0.02)
        cluster.remove_node(nodes[0], allow_graceful=False)
        print(f"node lost after {len(list(scores.glob('[0-9]*')))} shards", flush=True)

    threading.Thread(target=lose_one, daemon=True).start()
    with Display() as display:
        report = score(settings, display)
    for line in summary(report, settings, RunDirectory(settings.output)):
        print(line)
    left = sum(node["Alive"] for node in ray.nodes())
    print(f"nodes at the end: {left}", flush=True)
    ray.shutdown()  # Before the nodes, without which Ray ends this process with the exit code 1.
    cluster.shutdown()


if __name__ == "__main__":
    sys.exit(run_command(main))
