"""The KubeRay manifest of the documents uses fields of KubeRay's API reference (ray.io/v1), and the pinned Ray."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
MANIFEST: dict[str, Any] = next(
    document
    for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    if (document := yaml.safe_load(block)).get("kind") == "RayJob"
)
CLUSTER = MANIFEST["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]

POD_GROUP = {"template", "rayStartParams", "resources", "labels"}
FIELDS = {
    "RayJobSpec": {
        *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata"),
        *("clusterSelector", "submitterConfig", "managedBy", "deletionStrategy", "entrypoint", "runtimeEnvYAML"),
        *("jobId", "submissionMode", "entrypointResources", "entrypointNumCpus", "entrypointNumGpus"),
        *("ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "suspend"),
    },
    "RayClusterSpec": {
        *("suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling"),
        *("gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs", "authOptions"),
    },
    "HeadGroupSpec": POD_GROUP | {"headService", "enableIngress", "serviceType"},
    "WorkerGroupSpec": POD_GROUP
    | {
        *("suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds"),
        *("scaleStrategy", "numOfHosts"),
    },
    "AutoscalerOptions": {
        *("resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode"),
        *("version", "env", "envFrom", "volumeMounts"),
    },
    "AuthOptions": {"mode", "secretName", "enableK8sTokenAuth"},
}


def test_every_field_is_documented() -> None:
    assert (MANIFEST["apiVersion"], set(MANIFEST)) == ("ray.io/v1", {"apiVersion", "kind", "metadata", "spec"})
    used = {
        "RayJobSpec": MANIFEST["spec"],
        "RayClusterSpec": CLUSTER,
        "HeadGroupSpec": CLUSTER["headGroupSpec"],
        "AutoscalerOptions": CLUSTER["autoscalerOptions"],
        "AuthOptions": CLUSTER["authOptions"],
    }
    for name, values in used.items():
        assert set(values) <= FIELDS[name], name
    for group in CLUSTER["workerGroupSpecs"]:
        assert set(group) <= FIELDS["WorkerGroupSpec"], group["groupName"]


def test_it_runs_the_same_job_on_the_pinned_ray() -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert CLUSTER["rayVersion"] == pinned[1]
    assert f"rayproject/ray:{pinned[1]}-" in DOCUMENT, "the image's base is of another Ray"
    assert MANIFEST["spec"]["entrypoint"].startswith("python jobs/score.py ")
    images = {container["image"] for group in GROUPS for container in group["template"]["spec"]["containers"]}
    assert len(images) == 1, "all nodes need the same versions"


def test_it_is_as_closed_and_as_elastic_as_the_cluster_file() -> None:
    assert CLUSTER["authOptions"] == {"mode": "token"}
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert CLUSTER["enableInTreeAutoscaling"] is True
    for group in CLUSTER["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]
    for group in GROUPS:
        volumes = {volume["name"] for volume in group["template"]["spec"]["volumes"]}
        for container in group["template"]["spec"]["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
