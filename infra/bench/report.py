"""How a bench shows itself: one line of progress, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from infra.bench.figures import Figure

console = Console(stderr=True, highlight=False)
QUIET_LOAD = 1.0


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What is being measured: a status line on a terminal, a line each elsewhere."""
    begun = time.monotonic()
    with console.status("starting") as status:

        def say(what: str) -> None:
            status.update(what)
            console.print(f"[dim]{time.monotonic() - begun:6.1f} s[/] {what}")

        yield say


def table(figures: Sequence[Figure], machine: dict[str, Any]) -> None:
    """Every figure with its bare limit, the ratio, the bound and whether it is kept."""
    grid = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("figure", "measured", "bare limit", "ratio", "bound", ""):
        grid.add_column(column, justify="left" if column in ("figure", "") else "right", no_wrap=True)
    for each in figures:
        grid.add_row(
            each.name,
            f"{_number(each.value)} {each.unit}",
            "" if each.bare is None else _number(each.bare),
            "" if each.ratio is None else f"{each.ratio:.2f}",
            "" if each.bound is None else f"{'≤' if each.at_most else '≥'} {_number(each.bound)}",
            _verdict(each),
        )
    output = Console(highlight=False)
    output.print(grid)
    for each in figures:
        if each.condition:
            output.print(f"[dim]{each.name} is not judged: {each.condition}[/]")
    load = f"load {machine['load_before']:.1f} before and {machine['load_after']:.1f} after"
    output.print(f"[dim]{machine['cores']} cores, {load}[/]")
    if machine["load_before"] > QUIET_LOAD:
        output.print("[yellow]The machine was busy with other things: wall-clock figures are too low.[/]")


def _verdict(figure: Figure) -> str:
    if figure.condition:
        return "[dim]not judged[/]"
    return {None: "", True: "[green]ok[/]", False: "[red]short[/]"}[figure.is_ok]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
