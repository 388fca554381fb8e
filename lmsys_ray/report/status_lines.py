"""A status as lines of text."""

from __future__ import annotations

from lmsys_ray.report.status import MemberStatus, Status

_NEXT = {
    "died": "start the same command again, it goes on from there",
    "stopped": "start the same command again, it goes on from there",
    "failed": "mend that, then start the same command again",
    "silent": "look at that machine; where its process is gone, start the same command again",
}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def lines(status: Status) -> list[str]:
    """Returns the lines that tell how far a run is, and what to do next."""
    found = [f"{status.run}: {status.state}" + (f" ({status.about})" if status.about else "")]
    found[0] += f"; {_NEXT[status.state]}" if status.state in _NEXT else ""
    if status.ingested:
        found.append(f"ingest: done, {status.rows:,} rows in {status.shards:,} shards, {status.rejects:,} rejected")
    else:
        found.append(f"ingest: {status.shards:,} shards so far")
    found += [_member(name, member, status) for name, member in status.members.items()]
    if status.submission:
        found.append(f"submission: written {status.submission}")
    return found


def _member(name: str, member: MemberStatus, status: Status) -> str:
    share = f" ({member.bytes_scored / status.bytes:.0%} of the bytes)" if status.bytes else ""
    left = f", about {duration(member.seconds_left)} left" if member.seconds_left else ""
    return f"{name}: {member.scored:,} of {status.shards:,} shards{share}{left}"


def duration(seconds: float) -> str:
    """Returns seconds in their two largest units, such as `3 h 20 min`."""
    whole = round(seconds)
    for place, (size, unit) in enumerate(_UNITS):
        if whole >= size:
            rest = _UNITS[place + 1 :][:1]
            more = [f"{whole % size // below} {smaller}" for below, smaller in rest if whole % size >= below]
            return " ".join([f"{whole // size} {unit}", *more])
    return "0 s"
