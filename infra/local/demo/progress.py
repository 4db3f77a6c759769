"""The bars: what is prepared, then for each channel what was dispatched and what is explained to the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from infra.local.demo import watch

LINE_SECONDS = 10.0  # between two lines where there is no terminal


class Bars:
    """Two bars a channel on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._told_at = time.monotonic()

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """One bar for something whose end is not known beforehand."""
        task = self._progress.add_task(what, total=None)
        begun = time.monotonic()
        yield
        self._progress.update(task, total=1, completed=1)
        if not self._console.is_terminal:
            self._console.print(f"{what}: {time.monotonic() - begun:.1f} s")

    def show(self, channels: Mapping[str, watch.Progress], pending: int) -> None:
        """How far each channel is, and how many receipts the carriers still owe."""
        for channel, found in channels.items():
            if found.total:
                self._bar(f"{channel} dispatch", found.total, found.dispatched)
                self._bar(f"{channel} receipts", found.total, found.final)
        if not self._console.is_terminal and time.monotonic() - self._told_at > LINE_SECONDS:
            self._told_at = time.monotonic()
            words = [
                f"{name} {found.dispatched}/{found.total}, {found.final} final"
                for name, found in channels.items()
            ]
            self._console.print("; ".join([*words, f"{pending} receipts pending"]), soft_wrap=True)

    def _bar(self, name: str, total: int, completed: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], total=total, completed=completed)


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Bars that stay on the screen when the block ends."""
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=36),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bars(console, progress)
