"""Whoever watches a job is told something at least every half minute."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from lmsys_ray.scoring.progress import Display


def test_silence_is_broken_by_what_is_under_way(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmsys_ray.scoring.progress._SILENT_SECONDS", 0.5)
    with Display() as display:
        with display.during("run directory"), display.during("start of Ray"):
            time.sleep(2.5)
        time.sleep(1.5)
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 3, lines
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d still at work: start of Ray, for \d+ s", line) for line in lines), lines


def test_a_stage_that_goes_silent_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.begin("llama", 200, 900, replicas=2).add(50)
    now = time.monotonic()
    with display.during("passes"), display.during("pass llama"):
        display.show_activity(now + 40)
    said = capsys.readouterr().out
    assert re.fullmatch(r"\d\d:\d\d:\d\d llama: 50 of 200 \(25%\) rows after 40 s, 1 rows/s, 2 loading\n", said), said


def test_lines_are_their_own_sign_of_life(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsys_ray.scoring.progress._SILENT_SECONDS", 1.5)
    with Display() as display, display.during("join"):
        for _ in range(6):
            display.say("line")
            time.sleep(0.5)
    assert set(capsys.readouterr().out.splitlines()) == {"line"}


def test_json_has_one_object_a_line_with_what_the_words_say(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display("json")
    display.say("a note with \x1b[31m")
    progress = display.begin("llama", 200, 900, replicas=1)
    progress.utilization.add("a", 5.0, time.monotonic())
    progress.add(50, 4_000, 300)
    with display.during("pass llama"):
        display.show_activity(time.monotonic())
    with display.during("start of Ray"):
        display.show_activity(time.monotonic() + 30)
    message, shown, waiting = map(json.loads, capsys.readouterr().out.splitlines())
    assert (message["event"], message["text"]) == ("message", "a note with \x1b[31m")
    assert (shown["event"], shown["stage"], shown["rows"], shown["of"]) == ("progress", "llama", 50, 200)
    assert shown["seconds_left"] == pytest.approx(10, abs=1)
    assert (waiting["event"], waiting["for"]) == ("waiting", "start of Ray")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["time"]) for each in (message, shown, waiting))


def test_quiet_leaves_out_all_but_what_must_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display("quiet")
    for line in (
        "rows: 4 read",
        "warning: a cell holds lines",
        "rejects: 1 of the kind: empty",
        "submission: /run/s.csv",
    ):
        display.say(line)
    assert capsys.readouterr().out.splitlines() == [
        "warning: a cell holds lines",
        "rejects: 1 of the kind: empty",
        "submission: /run/s.csv",
    ]


BARS = """
import time
from lmsys_ray.scoring.progress import Display
with Display() as display:
    progress = display.begin("llama", 25_000, 9000, replicas=2)
    progress.utilization.add("a", 100.0, time.monotonic())
    progress.add(1_000, 500_000, 360)
    display.say("a note")
    time.sleep(1)
"""


def on_terminal(columns: int, term: str) -> str:
    """Returns what a terminal of so many columns shows of a pass."""
    master, slave = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "24", "TERM": term}
    process = subprocess.Popen([sys.executable, "-c", BARS], stdout=slave, env={**os.environ, **size})
    os.close(slave)
    shown = b""
    while process.poll() is None or select.select([master], [], [], 0)[0]:
        if select.select([master], [], [], 0.2)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:  # the other side is closed
                break
    os.close(master)
    assert process.wait() == 0
    return shown.decode()


@pytest.mark.parametrize("columns", [24, 40, 80, 120])
def test_bars_fit_the_terminal(columns: int) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(columns, "xterm"))
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
    assert "a note" in lines
    assert max(map(len, lines)) <= columns
    last = [line for line in lines if line.startswith("llama")][-1]
    assert "1,000/25,000" in last
    assert ("40 min" in last) == (columns >= 40)
    assert ("━" in last) == (columns >= 60)


def test_a_dumb_terminal_gets_lines() -> None:
    shown = on_terminal(80, "dumb")
    assert "\x1b" not in shown
    assert shown.split() == ["a", "note"]
