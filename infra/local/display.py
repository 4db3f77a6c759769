"""How the command line shows the stack: progress of a start, the table of processes, the doctor's findings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from infra.local.doctor import Finding
from infra.local.stack import Health, Report, Stack

console = Console(stderr=True, highlight=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A status line on a terminal, one line an event elsewhere."""
    begun = time.monotonic()
    waiting: dict[str, None] = {}

    with console.status("starting") as status:

        def report(component: str, event: str) -> None:
            waiting.pop(component, None) if event == "ready" else waiting.setdefault(component)
            status.update(f"waiting for {', '.join(waiting)}" if waiting else "done")
            if event == "ready":
                console.print(f"[green]✓[/] {component} [dim]{time.monotonic() - begun:.1f} s[/]")

        yield report


def addresses(stack: Stack) -> None:
    """Where everything is, once the stack is up."""
    settings = stack.settings
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("API", settings.api_url)
    table.add_row("functions", settings.functions_url)
    table.add_row("carriers", settings.carriers_url)
    table.add_row(
        "database", f"127.0.0.1:{settings.ports.postgres} (credoalert up --json tells the password)"
    )
    table.add_row("home", str(settings.home))
    console.print(table)


def processes(found: Sequence[Health]) -> None:
    """The table of `credoalert status`."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("process", "pid", "port", "up", "health"):
        table.add_column(column)
    for each in found:
        word = (
            "[green]well[/]"
            if each.is_healthy
            else "[yellow]no answer[/]"
            if each.is_alive
            else "[red]dead[/]"
        )
        table.add_row(each.name, str(each.pid), str(each.port or ""), _duration(each.seconds_up), word)
    Console(highlight=False).print(table)


def findings(found: Iterable[Finding]) -> bool:
    """The doctor's list; whether everything is well."""
    well = True
    for each in found:
        well &= not each.advice
        console.print(f"{'[red]✗[/]' if each.advice else '[green]✓[/]'} {each.subject}: {each.fact}")
        if each.advice:
            console.print(f"  → {each.advice}")
    return well


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
