"""The cluster file is one that `ray up` accepts, and names nothing that is not there."""

import json
from pathlib import Path

import ray.autoscaler
import yaml
from jsonschema import Draft7Validator

ROOT = Path(__file__).parent.parent
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_rays_own_schema_accepts_it() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    assert [error.message for error in Draft7Validator(schema).iter_errors(CLUSTER)] == []


def test_names_lead_somewhere() -> None:
    types = CLUSTER["available_node_types"]
    assert CLUSTER["head_node_type"] in types
    assert types[CLUSTER["head_node_type"]]["resources"]["CPU"] == 0, "the head runs no scoring"
    assert sum(node["max_workers"] for node in types.values()) <= CLUSTER["max_workers"]
    assert any("constraints.txt" in command for command in CLUSTER["setup_commands"])
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in CLUSTER[key][-1]
