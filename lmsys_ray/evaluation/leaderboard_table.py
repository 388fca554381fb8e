"""Shows a leaderboard on a terminal."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lmsys_ray.ensemble.leaderboard.board import Leaderboard, Standing
from lmsys_ray.ensemble.leaderboard.files import CSV, JSON
from lmsys_ray.ensemble.leaderboard.style import FEATURES
from lmsys_ray.ensemble.leaderboard.ties import TIES
from lmsys_ray.evaluation.tables import terminal
from lmsys_ray.printable import printable
from lmsys_ray.storage.files import AnyPath

_WIDE = 70
"""The columns of a terminal from which battles and rates are shown too."""

_REASONS = {
    "unnamed": "without both names",
    "same_model": "of a model against itself",
    "unscored": "rejected",
    "unlabelled": "without a label",
}


def show(board: Leaderboard, folder: AnyPath) -> None:
    """Prints the standings with intervals, what was estimated beside them and left out, and where the files are."""
    console = terminal()
    console.print(_table(board, console.width >= _WIDE))
    for line in (*_lines(board), f"files: {folder / CSV}, {folder / JSON}"):
        console.print(printable(line), soft_wrap=True)


def _table(board: Leaderboard, wide: bool) -> Table:
    what = "the blend's expectation" if board.settings.outcomes == "expected" else "labels"
    table = Table(title=f"leaderboard by {what}, 95 % intervals", box=SIMPLE_HEAD, pad_edge=False)
    table.title_justify, table.title_style = "left", "bold"
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("model", overflow="fold", min_width=8)
    for name in ("strength", "interval", *(("battles", "win rate", "ties") if wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for standing in board.standings:
        more = (f"{standing.battles:,}", f"{standing.win_rate:.1%}", f"{standing.tie_rate:.1%}")
        table.add_row(*_cells(standing), *(more if wide else ()))
    return table


def _cells(standing: Standing) -> list[str]:
    if standing.strength is None:
        return ["", printable(standing.model), "none", ""]
    ends = ""
    if standing.lower is not None and standing.upper is not None:
        ends = f"+{standing.upper - standing.strength:.0f} -{standing.strength - standing.lower:.0f}"
    rank = "" if standing.rank is None else str(standing.rank)
    return [rank, printable(standing.model), f"{standing.strength:.0f}", ends]


def _lines(board: Leaderboard) -> Iterator[str]:
    found, settings = board.strengths, board.settings
    if (parameter := TIES[settings.ties].parameter) and found.tie[0] == found.tie[0]:
        value, lower, upper = found.tie
        yield f"ties: {settings.ties} with {parameter} = {value:.3f} ({lower:.3f} to {upper:.3f})"
    for name, (value, lower, upper) in zip(FEATURES[settings.style], found.coefficients.T, strict=True):
        effect = f"{value:+.3f} ({lower:+.3f} to {upper:+.3f})" if value == value else "none, it never differs"
        yield f"style: {name} {effect}"
    for reason in dict.fromkeys(found.reasons.values()):
        names = [s.model for s in board.standings if s.reason == reason]
        yield f"without strength: {', '.join(names)}: {reason}"
    used, rounds = found.resamples, settings.bootstrap
    if found.battles and used < rounds:
        yield f"bootstrap: {rounds - used} of {rounds} resamples have no finite strengths and do not count"
    counted = [f"{rows:,} {_REASONS[reason]}" for reason, rows in board.left_out.items() if rows]
    left = f"; rows left out: {', '.join(counted)}" if counted else ""
    yield f"estimated from {found.battles:,} battles{left}"
