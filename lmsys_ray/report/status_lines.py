"""A status as lines of text."""

from __future__ import annotations

from lmsys_ray.durations import estimated
from lmsys_ray.report.status import MemberStatus, Status
from lmsys_ray.words import counted

_NEXT = {
    "died": "start the same command again, it goes on from there",
    "stopped": "start the same command again, it goes on from there",
    "failed": "mend that, then start the same command again",
    "silent": "look at that machine; where its process is gone, start the same command again",
}


def lines(status: Status) -> list[str]:
    """Returns the lines that tell how far a run is, and what to do next."""
    found = [f"{status.run}: {status.state}" + (f" ({status.about})" if status.about else "")]
    found[0] += f"; {_NEXT[status.state]}" if status.state in _NEXT else ""
    if status.ingested:
        read = f"{counted(status.rows or 0, 'row')} in {counted(status.shards, 'shard')}"
        found.append(f"ingest: done, {read}, {status.rejects:,} rejected")
    else:
        found.append(f"ingest: {counted(status.shards, 'shard')} so far")
    found += [_member(name, member, status) for name, member in status.members.items()]
    if status.submission:
        found.append(f"submission: written {status.submission}")
    return found


def _member(name: str, member: MemberStatus, status: Status) -> str:
    share = f" ({member.bytes_scored / status.bytes:.0%} of the bytes)" if status.bytes else ""
    left = f", about {estimated(member.seconds_left)} left" if member.seconds_left else ""
    return f"{name}: {member.scored:,} of {status.shards:,} shards{share}{left}"
