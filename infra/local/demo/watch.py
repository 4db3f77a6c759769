"""Watches an alert until every row is explained and every receipt is in, and kills dispatchers when asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from infra.local.carriers.client import Carriers
from infra.local.demo import evidence
from infra.local.demo.evidence import Connection
from infra.local.demo.reconcile import AWAITING_RECEIPT, OPEN
from infra.local.stack import Stack

States = Mapping[str, Mapping[str, int]]  # rows by channel and state

DISPATCHER = "dispatch-deliveries"
FIRST_KILL_SECONDS = 1.0
PAUSE_SECONDS = (0.3, 2.5)  # between one kill and the next
QUIET_SECONDS = 1.0  # nothing open and nothing pending for so long: done


@dataclass(slots=True, frozen=True)
class Progress:
    """Rows of one channel: in all, past the dispatchers, and explained to the end."""

    total: int
    dispatched: int
    final: int


@dataclass(slots=True, frozen=True)
class Kill:
    """A dispatcher that was killed, when (seconds since the send), and how many rows were claimed just before."""

    name: str
    at_seconds: float
    claimed: int


@dataclass(slots=True)
class Killer:
    """Kills dispatcher processes at random moments, each of which starts again at once."""

    stack: Stack
    wanted: int
    chance: Random
    next_at: float = FIRST_KILL_SECONDS
    kills: list[Kill] = field(default_factory=list)

    def strike(self, now_seconds: float, states: States) -> None:
        """Kill one dispatcher if it is time and something is left to send."""
        if len(self.kills) >= self.wanted or now_seconds < self.next_at or not rows_in(states, OPEN):
            return
        name = self.chance.choice(sorted(name for name in self.stack.running if name.startswith(DISPATCHER)))
        self.stack.kill(name)
        self.kills.append(Kill(name, now_seconds, rows_in(states, {"claimed"})))
        self.stack.restart(name)
        self.next_at = now_seconds + self.chance.uniform(*PAUSE_SECONDS)


@dataclass(slots=True, frozen=True)
class Watched:
    """How it went: seconds until nothing was open, and until it was quiet; what was open when the limit came."""

    dispatch_seconds: float | None
    quiet_seconds: float | None
    still_open: str


def watch(
    stack: Stack,
    sql: Connection,
    carriers: Carriers,
    organisation_id: UUID,
    alert_id: UUID,
    *,
    killer: Killer,
    begun_at: float,
    limit_seconds: float,
    show: Callable[[dict[str, Progress], int], None],
) -> Watched:
    """Poll until all is quiet or the limit is reached. Raises LocalStackError when a process dies unasked."""
    dispatched_at: float | None = None
    quiet_since: float | None = None
    while True:
        stack.check()
        polled = time.monotonic()
        states = evidence.states(sql, organisation_id, alert_id)
        pending = int(carriers.counts()["receipts"]["pending"])
        now_seconds = time.time() - begun_at
        show({channel: _progress(found) for channel, found in states.items()}, pending)
        if rows_in(states, OPEN):
            dispatched_at = quiet_since = None
        elif dispatched_at is None:
            dispatched_at = now_seconds
        if rows_in(states, OPEN) or pending or evidence.unplaced_receipts(sql, organisation_id, alert_id):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = now_seconds
        elif now_seconds - quiet_since >= QUIET_SECONDS:
            return Watched(dispatched_at, quiet_since, "")
        if now_seconds > limit_seconds:
            return Watched(dispatched_at, None, _still_open(states, pending))
        killer.strike(now_seconds, states)
        # a poll costs more the more rows there are: at most a tenth of the time
        time.sleep(min(2.0, max(0.2, 9 * (time.monotonic() - polled))))


def rows_in(states: States, wanted: frozenset[str] | set[str]) -> int:
    """Rows of all channels that are in one of these states."""
    return sum(count for found in states.values() for state, count in found.items() if state in wanted)


def _progress(found: Mapping[str, int]) -> Progress:
    total = sum(count for state, count in found.items() if state != "skipped")
    still = sum(count for state, count in found.items() if state in OPEN)
    waiting = sum(count for state, count in found.items() if state in AWAITING_RECEIPT)
    return Progress(total, total - still, total - still - waiting)


def _still_open(states: States, pending: int) -> str:
    rows = [
        f"{count} {channel} {state}"
        for channel, found in sorted(states.items())
        for state, count in sorted(found.items())
        if state in OPEN
    ]
    return ", ".join([*rows, f"{pending} receipts pending at the carriers"])
