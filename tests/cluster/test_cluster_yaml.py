"""The cluster file is one that `ray up` accepts, names nothing that is not there, and lets nobody in."""

import json
import re
from pathlib import Path

import pytest
import ray.autoscaler
import yaml
from jsonschema import Draft7Validator

from lmsys_ray.cluster.connect import launched_with_gpus

ROOT = Path(__file__).parents[2]
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
TYPES = CLUSTER["available_node_types"]
START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")


def test_rays_own_schema_accepts_it() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(CLUSTER)] == []


def test_the_head_scores_nothing_and_workers_come_and_go() -> None:
    head = CLUSTER["head_node_type"]
    assert TYPES[head]["resources"] == {"CPU": 0}
    workers = {name: node for name, node in TYPES.items() if name != head}
    assert {bool(node["resources"].get("GPU")) for node in workers.values()} == {True, False}
    for node in workers.values():
        assert node["min_workers"] == 0 < node["max_workers"]
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert sum(node["max_workers"] for node in TYPES.values()) <= CLUSTER["max_workers"]
    assert CLUSTER["idle_timeout_minutes"] > 0


def test_a_job_on_the_head_knows_that_gpus_can_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in CLUSTER["head_start_ray_commands"][-1]
    (tmp_path / "ray_bootstrap_config.yaml").write_text((ROOT / "cluster.yaml").read_text())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert launched_with_gpus()


def test_what_is_installed_is_what_was_mounted_at_the_pinned_versions() -> None:
    home = f"/home/{CLUSTER['auth']['ssh_user']}/"
    mounted = [target for target, source in CLUSTER["file_mounts"].items() if source == "."]
    assert mounted == [home + "lmsys_ray"]
    install = next(command for command in CLUSTER["setup_commands"] if "constraints.txt" in command)
    for name in re.findall(r"~/(lmsys_ray[\w./]*)", install):
        assert (ROOT / Path(name).relative_to("lmsys_ray")).exists(), name
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert pinned[1] == ray.__version__
    for command in CLUSTER["setup_commands"]:
        for requirement in re.findall(r"pip install -q (?!-)(\S+)", command):
            assert "==" in requirement, f"{requirement} has no version"


def test_nobody_gets_in_without_the_token_and_rays_ports_are_closed() -> None:
    opened = CLUSTER["provider"]["security_group"]["IpPermissions"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in opened] == [(22, 22)]
    assert any(target.endswith("/.ray/auth_token") for target in CLUSTER["file_mounts"])
    for key in START_COMMANDS:
        assert "RAY_AUTH_MODE=token" in CLUSTER[key][-1]
    head, worker = (CLUSTER[key][-1] for key in START_COMMANDS)
    assert "--dashboard-host=127.0.0.1" in head
    port = re.search(r"--port=(\d+)", head)
    assert port
    assert f"--address=$RAY_HEAD_IP:{port[1]}" in worker
