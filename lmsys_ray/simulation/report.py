"""The table and the plot of a simulation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

_GOAL = 0.95
_STYLES = {"dynamic": {"color": "#0072B2", "marker": "o"}, "static": {"color": "#D55E00", "marker": "s"}}


def show(results: Sequence[dict[str, Any]]) -> None:
    """Prints a line for each simulated pass."""
    table = Table(title="share of the replicas' time that they computed")
    for name in ("scenario", "dispatch", "replicas", "shards", "tokens", "seconds", "ideal seconds", "efficiency"):
        table.add_column(name, justify="left" if name in ("scenario", "dispatch") else "right")
    for result in results:
        table.add_row(
            result["scenario"],
            result["dispatch"],
            f"{result['replicas']:,}",
            f"{result['shards']:,}",
            f"{result['tokens']:,}",
            f"{result['seconds']:,.1f}",
            f"{result['ideal_seconds']:,.1f}",
            f"{result['efficiency']:.1%}",
        )
    Console().print(table)


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a PNG: efficiency over the number of replicas, a panel for each scenario."""
    scenarios = list(dict.fromkeys(result["scenario"] for result in results))
    figure = Figure(figsize=(3.4 * len(scenarios), 3.4), dpi=160, layout="constrained")
    panels = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
    for panel, scenario in zip(panels, scenarios, strict=True):
        for dispatch, style in _STYLES.items():
            chosen = [r for r in results if r["scenario"] == scenario and r["dispatch"] == dispatch]
            panel.plot([r["replicas"] for r in chosen], [r["efficiency"] for r in chosen], label=dispatch, **style)
        panel.axhline(_GOAL, color="#666666", linewidth=0.8, linestyle=(0, (4, 3)))
        panel.set_xscale("log", base=2)
        panel.set_xticks(
            sorted({r["replicas"] for r in results}), [f"{n}" for n in sorted({r["replicas"] for r in results})]
        )
        panel.set(title=scenario, xlabel="replicas", ylim=(0, 1.02))
    panels[0].set_ylabel("share of time computing")
    panels[0].legend(frameon=False, loc="lower left")
    figure.savefig(path, format="png")
