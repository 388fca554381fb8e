"""How many actors a pass asks for, and what they reserve, on machines and clusters of every kind."""

import pytest
import yaml
from pydantic import ValidationError

from lmsys_ray.cluster.connect import launched_with_gpus
from lmsys_ray.cluster.pool import Pool
from lmsys_ray.cluster.resources import Resources
from lmsys_ray.errors import RunError
from lmsys_ray.members.classifier.settings import ClassifierSettings
from lmsys_ray.members.lightgbm.settings import LightGBMSettings
from lmsys_ray.members.registry import kind_of


def llama(**changes: object) -> ClassifierSettings:
    return ClassifierSettings.model_validate({"kind": "llama", "model": "m", **changes})


def lightgbm(**changes: object) -> LightGBMSettings:
    return LightGBMSettings.model_validate({"kind": "lightgbm", "artifacts": "a", **changes})


def pool(member: ClassifierSettings | LightGBMSettings, shards: int, cluster: Resources) -> Pool:
    return kind_of(member).placement(member, shards, cluster)


MACHINE = Resources(cpus=8, gpus=2)
CLUSTER = Resources(cpus=8, gpus=2, grows=True)
NO_GPU = Resources(cpus=2, gpus=0, grows=True)
FROM_NOTHING = Resources(cpus=1, gpus=0, grows=True, starts_gpus=True)


@pytest.mark.parametrize(
    ("member", "cluster", "expected"),
    [
        (llama(), MACHINE, Pool(2, 0, 1, encoders=4)),
        (llama(gpus_per_replica=0.5), MACHINE, Pool(4, 0, 0.5, encoders=4)),
        (llama(gpus_per_replica=2), MACHINE, Pool(1, 0, 2, encoders=4)),
        (llama(replicas=1), MACHINE, Pool(1, 0, 1, encoders=4)),
        (llama(device="cpu"), MACHINE, Pool(1, 5, encoders=0, whole_machine=True)),
        (llama(device="cpu", replicas=3), MACHINE, Pool(3, 1.66, encoders=0, whole_machine=True)),
        (llama(), Resources(cpus=2, gpus=0), Pool(1, 1.25, encoders=0, whole_machine=True)),
        (llama(), Resources(cpus=1, gpus=0), Pool(1, 0.25, encoders=0, whole_machine=True)),
        (llama(), CLUSTER, Pool(100, 0, 1)),
        (llama(max_replicas=16), CLUSTER, Pool(16, 0, 1)),
        (llama(replicas=3), CLUSTER, Pool(3, 0, 1)),
        (llama(), NO_GPU, Pool(1, 0.5, encoders=0)),
        (llama(device="gpu", max_replicas=8), NO_GPU, Pool(8, 0, 1)),
        (llama(max_replicas=8), FROM_NOTHING, Pool(8, 0, 1)),
        (llama(device="cpu", replicas=3), FROM_NOTHING, Pool(3, 0.5, encoders=0)),
        (lightgbm(), MACHINE, Pool(4, 0.5, encoders=4)),
        (lightgbm(), FROM_NOTHING, Pool(1, 0.5)),
        (lightgbm(workers=6), NO_GPU, Pool(6, 0.5)),
    ],
)
def test_a_pool_fits_what_there_is_and_asks_for_what_may_come(
    member: ClassifierSettings | LightGBMSettings, cluster: Resources, expected: Pool
) -> None:
    assert pool(member, 100, cluster) == expected


def test_a_small_machine_encodes_in_one_process() -> None:
    assert [pool(lightgbm(), 100, Resources(cpus, 0)).encoders for cpus in (1, 2, 3, 16)] == [1, 1, 1, 8]


@pytest.mark.parametrize("member", [llama(), llama(device="cpu", replicas=4), lightgbm(workers=4)])
def test_no_actor_is_asked_for_that_would_have_no_shard(member: ClassifierSettings | LightGBMSettings) -> None:
    assert pool(member, 1, MACHINE).size == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"replicas": 3}, "replicas = 3 with gpus_per_replica = 1 need 3 GPUs, this machine has 2"),
        ({"gpus_per_replica": 4}, "replicas = auto with gpus_per_replica = 4 need 4 GPUs, this machine has 2"),
    ],
)
def test_a_machine_alone_says_that_it_has_too_few_gpus(changes: dict, sentence: str) -> None:
    with pytest.raises(RunError, match=sentence):
        pool(llama(**changes), 100, MACHINE)


def test_a_replica_takes_a_share_of_a_gpu_or_whole_ones() -> None:
    with pytest.raises(ValidationError, match="a share of one GPU, or a whole number of them"):
        llama(gpus_per_replica=1.5)


@pytest.mark.parametrize(
    ("gpu_worker", "starts"),
    [
        ({"resources": {"CPU": 8, "GPU": 1}, "max_workers": 8}, True),
        ({"resources": {"CPU": 8, "GPU": 1}, "max_workers": 0}, False),
        ({"resources": {"CPU": 8}, "max_workers": 8}, False),
    ],
)
def test_the_cluster_file_on_the_head_says_whether_gpus_can_come(
    tmp_path, monkeypatch: pytest.MonkeyPatch, gpu_worker: dict, starts: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not launched_with_gpus()
    types = {"head": {"resources": {"CPU": 0}, "max_workers": 0}, "gpu_worker": gpu_worker}
    (tmp_path / "ray_bootstrap_config.yaml").write_text(yaml.safe_dump({"available_node_types": types}))
    assert launched_with_gpus() is starts


@pytest.mark.parametrize(("items", "expected"), [(1, 1), (95, 1), (96, 2), (100_000, 2)])
def test_an_item_waits_behind_another_only_where_there_are_many(items: int, expected: int) -> None:
    assert Pool(4, 0, 1).in_flight(items) == expected
    assert Pool(1, 0, 1).in_flight(items) == 2
