"""Moments in UTC as text, such as `2026-01-02T03:04:05Z`."""

import calendar
import time

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def as_text(seconds: float | None = None) -> str:
    """Returns a moment in seconds since 1970, by default the present one, as text."""
    return time.strftime(_FORM, time.gmtime(seconds))


def moment(text: object) -> float | None:
    """Returns the seconds since 1970 of such a text; None for what is none."""
    try:
        return float(calendar.timegm(time.strptime(str(text), _FORM)))
    except ValueError:
        return None
