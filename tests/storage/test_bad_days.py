"""A store that is busy, loses answers, breaks them off or gives none: ridden out, or one sentence in good time."""

from collections.abc import Iterator

import pytest
import s3fs

from lmsys_ray.errors import RunError
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import RunLock
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.files import AnyPath, path_of
from tests.storage.conftest import Bucket
from tests.storage.proxy import HANGS, LOST, RESET, SHORT, Proxy, proxy_before


@pytest.fixture
def proxy(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxy_before(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def path(bucket: Bucket, proxy: Proxy) -> AnyPath:
    path = path_of(f"{bucket.url}/run/manifest.json")
    storage.write_bytes(path, b"first" * 1000)
    return path


@pytest.mark.parametrize("fault", [503, 500, 429, RESET, SHORT, LOST])
def test_what_passes_is_ridden_out(path: AnyPath, proxy: Proxy, fault: str | int) -> None:
    proxy.faults = [fault]
    assert storage.read_bytes(path) == b"first" * 1000
    proxy.faults = [fault]
    with storage.open_binary(path) as file:
        assert file.read() == b"first" * 1000
    if fault != SHORT:
        proxy.faults = [fault]
        storage.write_bytes(path, b"second")
        assert storage.read_bytes(path) == b"second"
        proxy.faults = [fault]
        assert storage.sizes(path.parent) == {"manifest.json": 6}


def test_a_lock_whose_answer_was_lost_is_held_and_another_start_refused(path: AnyPath, proxy: Proxy) -> None:
    run = RunDirectory(path.parent)
    proxy.faults = [LOST]
    with RunLock(run):
        assert proxy.faults == []
        with pytest.raises(RunError, match="is at work for process"), RunLock(run):
            pass
    assert not storage.exists(run.lock)


def test_a_store_that_answers_nothing_is_given_up_in_minutes(
    path: AnyPath, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts tries, each of which takes the read timeout, else 15 s; AWS_MAX_ATTEMPTS are 5 where nobody says so."""
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 0.3)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3fs.S3FileSystem.clear_instance_cache()
    path = path_of(str(path))
    proxy.always, most = HANGS, {}
    for name, deed in {
        "read": lambda: storage.read_bytes(path),
        "list": lambda: storage.names(path.parent),
        "write": lambda: storage.write_bytes(path, b"second"),
        "create": lambda: storage.create(path, b"second"),
    }.items():
        proxy.seen.clear()
        with pytest.raises(RunError, match=r"cannot be \w+ \(out of reach: Read timeout on endpoint URL.*AWS_ENDPOINT"):
            deed()
        most[name] = len(proxy.seen)
    assert most == {"read": 4, "list": 4, "write": 4, "create": 4}
    proxy.always = None
    assert storage.read_bytes(path) == b"first" * 1000
