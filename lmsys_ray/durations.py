"""Seconds in words."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Returns seconds in their two largest units, such as `3 h 20 min`."""
    whole = round(seconds)
    for place, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            rest = _UNITS[place + 1 :][:1]
            more = [f"{whole % size // below} {smaller}" for below, smaller in rest if whole % size >= below]
            return " ".join([f"{whole // size} {unit}", *more])
    return "0 s"


def estimated(seconds: float) -> str:
    """Returns estimated seconds in words, no more precise than an estimate is: whole minutes above ten of them."""
    step = 60 if seconds >= 600 else 10 if seconds >= 60 else 1
    return duration(round(seconds / step) * step)
