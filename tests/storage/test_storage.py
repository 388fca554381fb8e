"""One set of promises for local files and for objects of storage."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from upath import UPath

from lmsys_ray.config.layering import layer_settings
from lmsys_ray.config.messages import validate_settings
from lmsys_ray.errors import RunError, UsageError
from lmsys_ray.run_directory import lock
from lmsys_ray.run_directory.layout import RunDirectory
from lmsys_ray.run_directory.lock import RunLock
from lmsys_ray.scoring.settings import Settings
from lmsys_ray.storage import file_systems
from lmsys_ray.storage import files as storage
from lmsys_ray.storage.files import AnyPath, path_of
from tests.storage.conftest import Bucket


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> AnyPath:
    if request.param == "s3":
        return path_of(f"{request.getfixturevalue('bucket').url}/a folder/run")
    return path_of(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}/run")


def test_what_is_written_comes_back(folder: AnyPath) -> None:
    path = folder / "shards" / "00000.parquet"
    assert storage.names(folder / "shards") == set()
    assert storage.sizes(folder / "shards") == {}
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(path)
    for data in (b"first", b"second" * 100_000):
        storage.make_folder(folder)
        storage.write_bytes(path, data)
        assert storage.read_bytes(path) == data
        with storage.open_binary(path) as file:
            file.seek(len(data) - 3)
            assert (file.read(), file.seek(1), file.read(2)) == (data[-3:], 1, data[1:3])
    assert storage.names(folder) == {"shards"}
    assert storage.sizes(folder / "shards") == {"00000.parquet": len(data)}
    assert storage.names(folder / "shards") == {"00000.parquet"}
    assert storage.is_directory(folder / "shards")
    assert not storage.is_directory(path)
    assert [path_of(name) for name in storage.matches(f"{folder}/*/0000?.parquet")] == [path]
    assert storage.matches(str(path)) == [str(path)]
    for _ in range(2):
        storage.remove(path)
    assert not storage.exists(path)


def test_written_whole_or_not_at_all(folder: AnyPath) -> None:
    path = folder / "submission.csv"

    def write(text: str, fail: bool) -> None:
        with storage.atomic_file(path) as aside:
            aside.write_text(text)
            if fail:
                raise RunError("refused")

    with pytest.raises(RunError, match="refused"):
        write("half", fail=True)
    assert storage.names(folder) == set()
    write("whole", fail=False)
    with pytest.raises(RunError, match="refused"):
        write("half", fail=True)
    assert storage.read_bytes(path) == b"whole"
    assert storage.names(folder) == {"submission.csv"}


def test_of_two_that_create_a_file_one_does(folder: AnyPath) -> None:
    assert storage.create(folder / "lock.json", b"mine")
    assert not storage.create(folder / "lock.json", b"another's")
    assert storage.read_bytes(folder / "lock.json") == b"mine"


def test_one_start_at_a_time(folder: AnyPath, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory(folder)
    with RunLock(run), pytest.raises(RunError, match=rf"is at work for process {os.getpid()} on "), RunLock(run):
        pass
    run.replace_lock('{"process"')
    monkeypatch.setattr(lock, "_BEAT_SECONDS", 0.5)  # A damaged lock is watched for two beats.
    with RunLock(run) as held:
        held.check()
    assert run.read_lock() == ""


def test_an_upload_in_parts_that_fails_leaves_nothing(bucket: Bucket, denied_after: Callable[[float], None]) -> None:
    path = path_of(f"{bucket.url}/run/submission.csv")
    data = os.urandom(101 << 20)

    def write() -> None:
        with storage.atomic_file(path) as aside:
            aside.write_bytes(data)

    denied_after(2)  # Parts go up at the same time: some arrive, some do not.
    with pytest.raises(RunError, match=r"cannot be written \(access denied: The AWS Access Key Id you provided does"):
        write()
    denied_after(float("inf"))
    assert not storage.exists(path)
    write()
    assert storage.read_bytes(path) == data


def test_a_url_stays_a_url_and_a_path_a_path() -> None:
    for name in ("runs/x", "/runs/x", "~/x", "packaged:lightgbm"):
        assert path_of(name) == Path(name)
    assert path_of("file:///runs/x") == Path("/runs/x")
    for name in (
        "s3://bucket/dir/*.csv",
        "hf://datasets/me/pairs@refs/convert/parquet/train.parquet",
        "hf://me/adapter@v1",
        "hf://buckets/me/runs/today",
    ):
        path = path_of(name)
        assert isinstance(path, UPath)
        assert str(path) == name
        assert str(path / "manifest.json") == f"{name}/manifest.json"
        assert path.absolute() == path


def test_storage_that_cannot_be_read_from_here_is_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"^nope://x is in an unknown storage; accepted: local paths, s3://"):
        path_of("nope://x")
    with pytest.raises(RunError, match=r"^hf://me/adapter cannot be read \(out of reach: .*\); check the connection"):
        storage.exists(path_of("hf://me/adapter"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(protocol: str) -> None:
        raise ImportError(f"Install it to access {protocol}")

    file_systems.load.cache_clear()
    monkeypatch.setattr(file_systems, "get_filesystem_class", without)
    with pytest.raises(
        UsageError, match=r"^s3://b/x needs a package that is not .*; run pip install 'lmsys_ray\[s3\]'"
    ):
        path_of("s3://b/x")


CANCELLED_AS_IT_LOADS = """
import _thread, importlib.machinery, time
from lmsys_ray.storage.files import path_of

execute = importlib.machinery.SourceFileLoader.exec_module

def cancelled(loader, module):
    execute(loader, module)
    if module.__name__ == "aiohttp.client":
        _thread.interrupt_main()
        time.sleep(0.1)

importlib.machinery.SourceFileLoader.exec_module = cancelled
try:
    path_of("s3://bucket/in.csv")
except KeyboardInterrupt:
    print("cancelled")
print(path_of("s3://bucket/in.csv").fs.protocol)
"""


def test_a_task_cancelled_while_a_library_loads_leaves_it_usable() -> None:
    done = subprocess.run([sys.executable, "-c", CANCELLED_AS_IT_LOADS], capture_output=True, text=True, check=False)
    assert done.stdout == "cancelled\n('s3', 's3a')\n", done.stderr


def test_a_missing_bucket_is_one_sentence(endpoint: str) -> None:
    path = path_of("s3://no-such-bucket/run/shards/00000.parquet")
    for deed in (lambda: storage.write_bytes(path, b""), lambda: storage.create(path, b"")):
        with pytest.raises(RunError, match=r"00000\.parquet cannot be written \(not there: The specified bucket does"):
            deed()
    with pytest.raises(RunError, match=r"cannot be read \(not there: "):
        storage.open_binary(path)


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:SECRET@bucket/pairs.csv",
        "s3://KEY:SEC/RET@bucket/pairs.csv",
        "s3://SECRET@bucket/pairs.csv",
        "sftp://me:SECRET@host/pairs.csv",
        "https://host/pairs.csv?token=SECRET",
        "https://host/pairs.csv?a=1&X-Amz-Signature=SECRET",
    ],
)
def test_a_credential_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    for place, sets in {"input": [], "members.lightgbm.artifacts": [f"members.lightgbm.artifacts={url}"]}.items():
        flags = {"input": [url] if place == "input" else ["in.csv"], "output": "run"}
        with pytest.raises(UsageError, match=f"settings: {place}: a URL of .* holds a credential") as caught:
            validate_settings(Settings, layer_settings(None, [], flags, sets))
        assert "SEC" not in str(caught.value)
    with pytest.raises(UsageError, match="holds a credential"):
        path_of(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/part-?.csv",
        "s3://bucket/a:b@c.csv",
        "s3://arn:aws:s3:us-east-1:1:accesspoint/x/a@b.csv",
        "hf://datasets/me/pairs@main/x.csv",
        "http://host:80/a@b.csv",
    ],
)
def test_what_only_looks_like_a_credential_is_taken(url: str) -> None:
    assert str(path_of(url)) == url
