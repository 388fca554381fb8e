"""A function that is called in a thread of its own until it is stopped."""

import threading
import time

from lmsys_ray.polling import PollThread


def calls(seconds: float, at_once: bool = False) -> list[str]:
    """Polls every `seconds`, for 0.2 s; returns what was called."""
    called: list[str] = []
    thread = PollThread("test", seconds, lambda: called.append("poll"), at_once, lambda: called.append("end"))
    thread.start()
    time.sleep(0.2)
    thread.stop()
    return called


def test_it_polls_until_it_is_stopped_and_then_ends() -> None:
    called = calls(0.02)
    assert called[-1] == "end"
    assert 2 <= called.count("poll") <= 10
    assert called.count("end") == 1


def test_the_first_call_waits_unless_it_is_asked_for_at_once() -> None:
    assert calls(60) == ["end"]
    assert calls(60, at_once=True) == ["poll", "end"]


def test_a_poll_can_cancel_its_own_thread() -> None:
    polled = []

    def poll() -> None:
        polled.append(thread.cancelled)
        thread.cancel()

    thread = PollThread("test", 0.01, poll)
    thread.start()
    time.sleep(0.1)
    thread.stop()
    assert polled == [False]
    assert thread.cancelled


def test_stop_waits_no_longer_than_it_is_told() -> None:
    release = threading.Event()

    def wait() -> None:
        release.wait(30)

    thread = PollThread("test", 0.01, wait, at_once=True)
    thread.start()
    began = time.monotonic()
    thread.stop(0.1)
    assert time.monotonic() - began < 5
    release.set()
