"""Models out of object storage: fetched once for each machine and content, whole or not at all."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.scoring.fingerprint import fingerprint
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage.cache import local_copy
from tests.storage.conftest import Bucket


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LMSYS_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fetched"


@pytest.fixture
def model(bucket: Bucket) -> str:
    for name in ("config.json", "model.safetensors", "README.md", "more/config.json"):
        bucket.put(f"models/judge/{name}", name.encode() * 1000)
    return f"{bucket.url}/models/judge"


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_local_name_stays_what_it_is(tmp_path: Path) -> None:
    assert local_copy("me/a-model-of-the-hub") == Path("me/a-model-of-the-hub")
    assert local_copy(str(tmp_path)) == tmp_path


def test_a_directory_is_fetched_once_until_it_changes(model: str, bucket: Bucket, cache: Path) -> None:
    wanted = ("*.json", "*.safetensors")
    copy = local_copy(model, wanted)
    assert content(copy) == {name: name.encode() * 1000 for name in ("config.json", "model.safetensors")}
    (copy / "config.json").write_bytes(b"seen again")
    assert local_copy(model, wanted) == copy
    assert (copy / "config.json").read_bytes() == b"seen again"
    assert content(local_copy(model, ("config.json",))) == {"config.json": b"config.json" * 1000}
    bucket.put("models/judge/config.json", b"changed")
    changed = local_copy(model, wanted)
    assert changed != copy
    assert (changed / "config.json").read_bytes() == b"changed"


def test_a_file_is_fetched_under_its_name(model: str) -> None:
    copy = local_copy(f"{model}/model.safetensors")
    assert copy.name == "model.safetensors"
    assert copy.read_bytes() == b"model.safetensors" * 1000


def test_all_that_ask_at_once_share_one_copy(model: str, bucket: Bucket, cache: Path) -> None:
    bucket.put("models/judge/model.safetensors", b"x" * (20 << 20))
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(local_copy, [model] * 4))
    assert len(set(copies)) == 1
    assert [path for path in cache.iterdir() if path.is_dir()] == [copies[0]]


def test_what_cannot_be_fetched_leaves_nothing(model: str, cache: Path, denied_after: Callable[[float], None]) -> None:
    denied_after(3)
    with pytest.raises(RunError, match=r"models/judge cannot be fetched \(access denied: .*\); check the credentials"):
        local_copy(model)
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    denied_after(float("inf"))
    assert len(content(local_copy(model))) == 3
    with pytest.raises(UsageError, match=r"/none does not exist, or holds no "):
        local_copy(f"{model}/none")


def test_identity_tells_models_and_inputs_by_their_etags(model: str, bucket: Bucket) -> None:
    header = b"id,prompt,response_a,response_b\n"
    url = bucket.put("in.csv", header)
    values = {"input": url, "output": "run", "members": {"llama": {"kind": "llama", "model": model}}}
    before = fingerprint(Settings.model_validate(values))
    etag = hashlib.md5(header).hexdigest()
    assert before["ingest"]["input"] == [{"path": url, "bytes": len(header), "digest": f"etag {etag}"}]
    bucket.put("models/judge/README.md", b"another card")
    bucket.put("models/judge/config.json", b"config.json" * 1000)  # the same content, later
    assert fingerprint(Settings.model_validate(values)) == before
    bucket.put("models/judge/config.json", b"another")
    after = fingerprint(Settings.model_validate(values))
    assert after["members"]["llama"]["model_content"] != before["members"]["llama"]["model_content"]
