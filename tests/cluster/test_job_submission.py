"""`ray job submit` as documented: results that stay, stop and resume; no stranger; no node without the files."""

import csv
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.heads import BIN, ROOT, Head, checkout, wait_for
from tests.members.lightgbm.texts import conversations
from tests.tiny_llama import make_adapter, make_model

pytestmark = pytest.mark.slow

ROWS, SHARD_ROWS = 2400, 24


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    head = Head(tmp_path_factory.mktemp("home"), checkout(tmp_path_factory.mktemp("checkout")))
    try:
        yield head
    finally:
        head.stop()


@pytest.fixture(scope="module")
def headline(head: Head) -> str:
    """What the documented lines said, after a local run in the same home."""
    local = head.shell("PYTHONPATH=. python jobs/score.py --limit 8 --output runs/local --set members.llama.weight=0")
    assert local.returncode == 0, local.stdout
    done = head.run_documented()
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny random judge that takes long enough to be stopped."""
    folder = tmp_path_factory.mktemp("run")
    make_model(folder / "llama")
    make_adapter(folder / "adapter")
    (folder / "shared").mkdir()
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt", "response_a", "response_b"])
        for number, row in enumerate(conversations(ROWS, seed=4).to_pylist()):
            writer.writerow([number, row["prompt"], row["response_a"], row["response_b"]])
    llama = {"kind": "llama", "model": str(folder / "llama"), "adapter": str(folder / "adapter"), "batch_tokens": 64}
    values = {"input": str(folder / "in.csv"), "output": str(folder / "shared" / "out"), "shard_rows": SHARD_ROWS}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**values, "members": {"llama": llama}}))
    return path


def submit(head: Head, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return head.job("submit", *options, "--working-dir", ".", "--", "python", "jobs/score.py", *arguments)


def scored(config: Path) -> dict[str, int]:
    """Returns the shards with scores and when each was written, in nanoseconds."""
    return {path.name: path.stat().st_mtime_ns for path in config.parent.glob("shared/out/scores/llama/*.parquet")}


def ids(submission: Path) -> list[str]:
    with submission.open(encoding="utf-8") as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_the_headline_command_ends_with_results_that_are_found_where_it_says(head: Head, headline: str) -> None:
    said = re.search(r"^submission: (/.*)$", headline, re.MULTILINE)
    assert said, headline
    assert Path(said[1]) == head.home / "lmsys_ray/runs/sample/submission.csv"
    with (ROOT / "lmsys_ray/packaged/sample.csv").open(encoding="utf-8") as file:
        assert ids(Path(said[1])) == [row["id"] for row in csv.DictReader(file)]


def test_an_edit_in_the_working_directory_does_not_begin_the_run_anew(head: Head, headline: str) -> None:
    (head.checkout / "jobs" / "note.txt").write_text("another working directory for Ray\n")
    again = submit(head)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "llama: nothing to score, all shards were done" in again.stdout


def test_a_local_run_leaves_no_token_behind(head: Head, headline: str) -> None:
    """So that `ray start` in the same home asks for one only where the user made one."""
    assert headline.count("Generated new authentication token") == 1


def test_a_submitted_job_is_stopped_goes_on_and_tells_how_far_it_is(head: Head, headline: str, config: Path) -> None:
    first = submit(head, "--config", str(config), options=("--no-wait", "--submission-id", "first"))
    assert first.returncode == 0, first.stdout + first.stderr

    def logs() -> str:
        return head.job("logs", "first").stdout

    wait_for(lambda: len(scored(config)) >= 3, 300, logs)
    assert "RUNNING" in head.job("status", "first").stdout
    assert head.job("stop", "first").returncode == 0
    assert "was stopped" in head.job("status", "first").stdout
    kept = scored(config)
    assert 3 <= len(kept) < ROWS // SHARD_ROWS
    assert not (config.parent / "shared" / "out" / "submission.csv").exists()

    second = submit(head, "--config", str(config))
    assert second.returncode == 0, second.stdout + second.stderr
    assert "succeeded" in second.stdout
    assert re.search(r"^[\d:]+ llama: [\d,]+ of [\d,]+ \(\d+%\) rows after", second.stdout, re.MULTILINE), second.stdout
    after = scored(config)
    assert len(after) == ROWS // SHARD_ROWS
    assert {name: after[name] for name in kept} == kept, "what the first job had scored was scored again"
    assert ids(config.parent / "shared/out/submission.csv") == [str(number) for number in range(ROWS)]


def test_nobody_submits_without_the_token(head: Head, headline: str, config: Path) -> None:
    stranger = head.environment | {"HOME": str(config.parent), "RAY_AUTH_MODE": "disabled"}
    refused = subprocess.run([str(BIN / "ray"), "job", "list"], env=stranger, capture_output=True, check=False)
    assert refused.returncode != 0


@pytest.fixture(scope="module")
def node_without_files(head: Head, headline: str, config: Path) -> Iterator[None]:
    """A second node, on which another file system lies where the first has the run directory."""
    mount = f"mount -t tmpfs none {config.parent / 'shared'}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    start = f"{BIN / 'ray'} start --address=127.0.0.1:{head.port} --block --num-cpus=2 --num-gpus=0"
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {start}"],
        env=head.environment | {"RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        node.send_signal(signal.SIGTERM)
        node.wait(60)


def left_out(said: str) -> list[str]:
    """Returns why nodes were left out."""
    return re.findall(r"^node \S+ \(\w{8}\) does not see the run's files and is left out: (.*)$", said, re.MULTILINE)


@pytest.mark.soak
def test_a_node_without_the_files_that_joins_is_left_out_and_its_pass_starts_again(
    head: Head, headline: str, config: Path, request: pytest.FixtureRequest
) -> None:
    output, gate = config.parent / "shared" / "joined", config.parent / "gate"
    gate.mkdir()
    gated = {"PYTHONPATH": str(ROOT / "tests/fault_tolerance/gated"), "GATE": str(gate), "FREE_SHARDS": "1"}
    options = ("--no-wait", "--submission-id", "joined", "--runtime-env-json", json.dumps({"env_vars": gated}))
    settings = ("--config", str(config), "--limit", "480", "--output", str(output))
    # Four find room on the first node, two wait for another.
    begun = submit(head, *settings, "--set", "members.llama.replicas=6", options=options)
    assert begun.returncode == 0, begun.stdout + begun.stderr

    def logs() -> str:
        return head.job("logs", "joined").stdout

    wait_for(lambda: any(output.glob("scores/llama/*.parquet")), 300, logs)
    assert left_out(logs()) == []
    request.getfixturevalue("node_without_files")
    wait_for(lambda: len(left_out(logs())) == 1, 300, logs)
    (gate / "open").touch()
    wait_for(lambda: "SUCCEEDED" in head.job("status", "joined").stdout, 300, logs)
    assert left_out(logs()) == [f"{output} is not the run directory there"]
    assert ids(output / "submission.csv") == [str(number) for number in range(480)]


@pytest.mark.usefixtures("node_without_files")
def test_a_node_that_does_not_see_the_run_directory_is_named_and_left_out(head: Head, config: Path) -> None:
    nodes = "import ray; ray.init(log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
    client = f"export RAY_AUTH_MODE=token RAY_ADDRESS=127.0.0.1:{head.port}"
    wait_for(lambda: head.shell(client, f'python -c "{nodes}"').stdout.strip().endswith("2"), 120, lambda: "no node")
    other = config.parent / "shared" / "other"
    done = submit(head, "--config", str(config), "--limit", "48", "--output", str(other))
    assert done.returncode == 0, done.stdout + done.stderr
    assert left_out(done.stdout) == [f"{other} is not the run directory there"]
    assert ids(other / "submission.csv") == [str(number) for number in range(48)]
