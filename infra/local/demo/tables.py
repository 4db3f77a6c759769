"""The report on the terminal: what was refused, what became of the alert, and the reconciliation."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from infra.local.demo import figures
from infra.local.demo.options import CHANNELS
from infra.local.demo.reconcile import Tally
from infra.local.demo.run import Outcome

MOST_REFUSED = 11


def show(outcome: Outcome, console: Console) -> None:
    """Every table, then a verdict with one sentence for each thing that does not fit."""
    channels = figures.by_channel(outcome.evidence)
    console.print(_refused(outcome))
    console.print(_channels(outcome, channels))
    console.print(_reasons(channels))
    console.print(_reconciliation(outcome))
    _money_and_time(outcome, console)
    for sentence in outcome.failures:
        console.print(f"✗ {sentence}", style="red", markup=False, soft_wrap=True)
    if not outcome.failures:
        console.print(
            f"[green]✓[/] everything reconciles: {len(outcome.findings.checks)} checks, "
            f"{len(outcome.evidence.deliveries):,} rows, {len(outcome.evidence.journal):,} journal entries"
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right")
    return table


def _refused(outcome: Outcome) -> Table:
    imported = outcome.scene.imported
    table = Table(
        title=f"Import: {imported.created:,} people, {imported.refused_count} rows refused",
        title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for column in ("file", "row", "column", "reason"):
        table.add_column(column)
    seen: set[tuple[str, str]] = set()
    for row in imported.refused:
        if (row["column"], row["reason"]) not in seen and len(seen) < MOST_REFUSED:
            seen.add((row["column"], row["reason"]))
            table.add_row(row["file"], str(row["row"]), row["column"], row["reason"])
    if imported.refused_count > len(seen):
        table.add_row("", "", "", f"and {imported.refused_count - len(seen)} more for the same reasons")
    return table


def _channels(outcome: Outcome, channels: dict[str, dict[str, Any]]) -> Table:
    table = _table("Report", "", *CHANNELS, "all")
    for name in ("paths", "planned", "sent", "delivered", "answered", "awaiting_receipt", "credits"):
        counts = [channels[channel][name] for channel in CHANNELS]
        table.add_row(name.replace("_", " "), *(_number(count) for count in [*counts, sum(counts)]))
    for name in ("seconds_to_accept", "seconds_to_deliver"):
        whole = outcome.evidence.report[name]
        for share in ("p50", "p95"):
            cells = [_seconds(channels[channel][name][share]) for channel in CHANNELS]
            table.add_row(
                f"{name.replace('_', ' ').replace('seconds', 'time')} {share}", *cells, _seconds(whole[share])
            )
    return table


def _reasons(channels: dict[str, dict[str, Any]]) -> Table:
    table = _table("Not sent or not delivered, by reason", "", *CHANNELS, "all")
    for what in ("skipped", "failed"):
        reasons: Counter[str] = sum((channels[channel][what] for channel in CHANNELS), Counter())
        for reason, whole in reasons.most_common():
            counts = [channels[channel][what][reason] for channel in CHANNELS]
            table.add_row(f"{what}: {reason}", *(_number(count) for count in [*counts, whole]))
    return table


_ROWS: tuple[tuple[str, str], ...] = (
    ("claimed_sent", "our rows say sent"),
    ("accepted_once", "accepted once by the carrier"),
    ("duplicates", "duplicates"),
    ("flagged", "  of them flagged by our rows"),
    ("repeated", "repeated under one webhook-id"),
    ("missing", "missing"),
    ("strangers", "strangers"),
)


def _reconciliation(outcome: Outcome) -> Table:
    tallies = outcome.findings.tallies
    table = _table("Reconciliation with the carriers' journal", "", *CHANNELS, "all")
    for name, words in _ROWS:
        counts = [_count(tallies.get(channel), name) for channel in CHANNELS]
        table.add_row(words, *(_number(count) for count in [*counts, sum(counts)]))
    return table


def _count(tally: Tally | None, name: str) -> int:
    value = getattr(tally, name) if tally else 0
    return len(value) if isinstance(value, list) else int(value)


def _money_and_time(outcome: Outcome, console: Console) -> None:
    ledger, rates = outcome.evidence.ledger, figures.rates(outcome.evidence, outcome.sent.begun_at)
    console.print(
        f"credits: {ledger.reservation:,} reserved = {ledger.settled:,} settled + {ledger.released:,} released; "
        f"balance {ledger.available:,}"
    )
    watched = outcome.watched
    console.print(
        f"fan-out {outcome.sent.send_seconds:.2f} s; {rates['messages_accepted']:,} messages accepted in "
        f"{rates['seconds']:.1f} s = {rates['messages_per_second']:,.0f}/s, 95% of them in "
        f"{rates['seconds_of_95_percent']:.1f} s = {rates['messages_per_second_of_95_percent']:,.0f}/s; "
        f"everything explained after {_seconds(watched.quiet_seconds)}",
        soft_wrap=True,
    )
    if kills := outcome.killer.kills:
        held = sum(kill.claimed for kill in kills)
        console.print(f"dispatchers killed: {len(kills)}, with {held:,} rows claimed at those moments")


def _number(count: int) -> str:
    return f"{count:,}" if count else "·"


def _seconds(value: float | None) -> str:
    return "·" if value is None else f"{value:.1f} s"
