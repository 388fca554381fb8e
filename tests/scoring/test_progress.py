"""Whoever watches a job is told something at least every half minute."""

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
    assert all(line.startswith("still at work: start of Ray, for ") for line in lines)


def test_a_stage_that_goes_silent_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.start("llama", 200)
    display.advance("llama", 50)
    now = time.monotonic()
    with display.during("passes"), display.during("pass llama"):
        display.show_activity(now + 40)
    assert capsys.readouterr().out == ("still at work: pass llama, for 40 s (llama: 50 of 200 (25%) rows after 0 s)\n")


def test_lines_are_their_own_sign_of_life(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmsys_ray.scoring.progress._SILENT_SECONDS", 1.5)
    with Display() as display, display.during("join"):
        for _ in range(6):
            display.say("line")
            time.sleep(0.5)
    assert set(capsys.readouterr().out.splitlines()) == {"line"}
