"""The job on a cluster that begins without workers: Ray's autoscaler starts those of cluster.yaml, as local nodes."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.util import get_node_ip_address

from tests.fault_tolerance.jobs import (
    ROOT,
    environment,
    finish,
    make_lightgbm,
    make_llama,
    submission,
    write_input,
    write_settings,
)

pytestmark = [pytest.mark.slow, pytest.mark.soak]

RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "ray.head.default"
"""What Ray's provider of pretended nodes calls the head's type."""

COMMANDS = [
    *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
]
ROWS = 96


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def local(cluster: dict[str, Any], gcs: str) -> dict[str, Any]:
    """Returns the cluster file with its nodes as processes of this machine: fewer CPUs, fewer nodes, sooner idle."""
    types = {HEAD if name == cluster["head_node_type"] else name: node for name, node in _types(cluster)}
    provider = {"use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True}
    return {
        "cluster_name": cluster["cluster_name"],
        "max_workers": cluster["max_workers"],
        "upscaling_speed": cluster["upscaling_speed"],
        "idle_timeout_minutes": 0.1,
        "provider": {"type": "fake_multinode", "gcs_address": gcs, **provider},
        "available_node_types": types,
        "head_node_type": HEAD,
        **{key: {} for key in ("auth", "file_mounts", "head_node", "worker_nodes")},
        **{key: [] for key in ("cluster_synced_files", *COMMANDS)},
    }


def _types(cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in cluster["available_node_types"].items():
        resources = {**node["resources"], "CPU": min(2, node["resources"]["CPU"]), "object_store_memory": 100 << 20}
        limits = {"min_workers": node["min_workers"], "max_workers": min(2, node["max_workers"])}
        yield name, {"resources": resources, "node_config": {}, **limits}


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A head with an autoscaler; gives its address."""
    address = f"{get_node_ip_address()}:{free_port()}"
    config = tmp_path / "ray_bootstrap_config.yaml"
    config.write_text(yaml.safe_dump(local(yaml.safe_load((ROOT / "cluster.yaml").read_text()), address)))
    command = [RAY, "start", "--head", "--block", f"--port={address.split(':')[1]}", f"--autoscaling-config={config}"]
    command += ["--num-cpus=0", "--num-gpus=0", "--include-dashboard=false", f"--object-store-memory={100 << 20}"]
    pretended = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environ = {**environment(tmp_path), **pretended, "RAY_AUTH_MODE": "disabled"}
    log = tmp_path / "head.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environ, stdout=file, stderr=file, start_new_session=True)
    try:
        end = time.monotonic() + 180
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)


def test_workers_come_for_a_job_and_go_after_it(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = write_input(tmp_path / "in.csv", ROWS)
    write_settings(tmp_path, {"llama": make_llama(tmp_path), "lightgbm": make_lightgbm(tmp_path)}, shard_rows=8)
    for name, value in {"RAY_ADDRESS": address, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}.items():
        monkeypatch.setenv(name, value)
    code, said = finish(tmp_path)
    assert code == 0, said + (tmp_path / "head.log").read_text()
    assert "ingest: waits for nodes with 1 CPU, the cluster has none" in said
    assert re.search(r"llama: (waits for nodes with 1 GPU|nodes with GPUs are now)", said), said
    assert [line[0] for line in submission(tmp_path)] == ids
    for member in ("llama", "lightgbm"):
        assert f"{member}: {ROWS} rows" in said
    assert nodes_left(address) == 1


def nodes_left(address: str, seconds: float = 120) -> int:
    """Returns how many nodes live once idle ones were ended."""
    look = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
    end = time.monotonic() + seconds
    while True:
        done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
        left = int(done.stdout.split()[-1])
        if left == 1 or time.monotonic() > end:
            return left
