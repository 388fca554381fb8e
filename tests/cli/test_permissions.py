"""What a user may not read or write is one sentence, before anything long begins.

A socket opens for nobody, and /proc takes no folder from anybody, so that these hold for root too.
"""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lmsys_ray.cli import benchmark, simulate, train_classifier, train_lightgbm
from lmsys_ray.data.labels import read_labels
from lmsys_ray.data.readers.rows import head
from lmsys_ray.errors import RunError
from tests.members.labelled import labelled_rows, write_rows

UNREADABLE = r"cannot be read \(No such device or address\); mend that and start the same command again"
SHUT = Path("/proc/shut")


@pytest.fixture(params=["closed.csv", "closed.jsonl", "closed.parquet"])
def closed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of a file that is there, and that nobody can open."""
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(request.param)
    return str(request.param)


def test_an_input_or_labels_that_cannot_be_opened(closed: str) -> None:
    for read in (head, read_labels):
        with pytest.raises(RunError, match=rf"^{closed} {UNREADABLE}$"):
            read(closed)


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (train_lightgbm.main, ("--input", "rows.csv")),
        (train_classifier.main, ("--input", "rows.csv", "--model", "packaged:smollm2-135m")),
        (simulate.main, ("--tokens-per-second", "1000")),
        (benchmark.main, ()),
    ],
)
def test_an_output_that_cannot_be_made_is_told_before_the_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[Sequence[str]], object],
    more: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", labelled_rows(20))
    with pytest.raises(RunError, match=rf"^{SHUT}.* cannot be (made|written) \(.*\); mend that and start"):
        command([*more, "--output", str(SHUT / "made")])
    assert "log loss" not in capsys.readouterr().out
