"""Put on PYTHONPATH by tests: Python's clock is `SECONDS_BEHIND`, as on a machine that has lost the time.

Python imports this module at its start; the package itself knows nothing of it. What files say about their times, the
kernel writes by its own clock.
"""

import os
import time

BEHIND = int(os.environ["SECONDS_BEHIND"])

_time, _time_ns, _gmtime, _localtime, _strftime = time.time, time.time_ns, time.gmtime, time.localtime, time.strftime


# Functions with names, since Ray Data pickles `time.time`.
def old_time():  # type: ignore[no-untyped-def]
    return _time() - BEHIND


def old_time_ns():  # type: ignore[no-untyped-def]
    return _time_ns() - BEHIND * 1_000_000_000


def old_gmtime(seconds=None):  # type: ignore[no-untyped-def]
    return _gmtime(old_time() if seconds is None else seconds)


def old_localtime(seconds=None):  # type: ignore[no-untyped-def]
    return _localtime(old_time() if seconds is None else seconds)


def old_strftime(form, moment=None):  # type: ignore[no-untyped-def]
    return _strftime(form, old_localtime() if moment is None else moment)


time.time, time.time_ns = old_time, old_time_ns
time.gmtime, time.localtime, time.strftime = old_gmtime, old_localtime, old_strftime
