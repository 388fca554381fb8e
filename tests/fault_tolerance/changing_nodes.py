"""Scores on a cluster whose GPU nodes come and go while the passes are under way. Run by a test."""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from lmsys_ray.cli.command import run_command
from lmsys_ray.cli.score import parser, score_settings
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.scoring.job import Report, score
from lmsys_ray.scoring.progress import Display
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.scoring.summary import summary


def main() -> None:
    settings = score_settings(parser().parse_args())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(run, settings)
        nodes = change_nodes(cluster, work, Path(settings.output) / "scores" / "llama", Path(os.environ["GATE"]))
        report = work.result()
    for line in summary(report, settings, RunDirectory(settings.output)):
        print(line)
    left = sum(node["Alive"] for node in ray.nodes())
    (Path(settings.output) / "nodes.json").write_text(json.dumps({"nodes": nodes, "by": report.nodes, "left": left}))
    ray.shutdown()  # Before the nodes, without which Ray ends this process with the exit code 1.
    cluster.shutdown()


def run(settings: Settings) -> Report:
    with Display() as display:
        return score(settings, display)


def change_nodes(cluster: Cluster, work: Future, scores: Path, gate: Path) -> dict[str, str]:
    """Adds one GPU node once the CPU pass is under way, three more in the midst of the pass, and loses one of them.

    Nodes are added from the main thread, as Ray asks for.
    """

    def wait_for(happened: Callable[[], bool]) -> None:
        while not happened():
            if work.done():
                work.result()
                raise SystemExit("the job came to its end too early")
            time.sleep(0.05)

    def shards() -> int:
        return len(list(scores.glob("[0-9]*.parquet")))

    wait_for(lambda: any(scores.parent.glob("lightgbm/*.parquet")))
    first = cluster.add_node(num_cpus=0, num_gpus=1)
    wait_for(lambda: shards() >= 4)
    added = [cluster.add_node(num_cpus=0, num_gpus=1) for _ in range(3)]
    wait_for(lambda: len(list(gate.iterdir())) == 4)
    (gate / "open").touch()
    wait_for(lambda: shards() >= 50)
    cluster.remove_node(added[0], allow_graceful=False)
    return {"first": first.node_id, "lost": added[0].node_id, "second": added[1].node_id, "third": added[2].node_id}


if __name__ == "__main__":
    sys.exit(run_command(main))
