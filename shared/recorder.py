"""Gathers results and records them in batches: what is in flight to the database is one call a lease at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from shared import clock as clocks
from shared import deliveries
from shared.errors import AppError
from shared.log import log

LINGER_SECONDS = 0.05  # waited for company: a call costs the database as much for 1 row as for 30
LARGEST = 1000
GIVE_UP_SECONDS = 60.0


class Recorder:
    """Takes results from many senders; `close` returns when all are recorded or given up (their lease then ends)."""

    def __init__(self, database: deliveries.ServiceDatabase, clock: clocks.Clock = clocks.system) -> None:
        self._database = database
        self._clock = clock
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._count = 0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.tally: Counter[str] = Counter()

    def add(self, token: str, row: dict[str, Any]) -> None:
        """Keep one result of a lease for the next call."""
        self._waiting.setdefault(token, []).append(row)
        self._count += 1
        self.tally[row["outcome"]] += 1
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        self._some.set()
        if self._count >= LARGEST:
            self._many.set()

    async def close(self) -> None:
        """Record what is left."""
        self._closing = True
        self._some.set()
        self._many.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            if not self._closing and self._count < LARGEST:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._many.wait(), LINGER_SECONDS)
            batch, self._waiting, self._count = self._waiting, {}, 0
            self._many.clear()
            if not batch:
                if self._closing:
                    return
                self._some.clear()
                continue
            await asyncio.gather(*(self._record(token, rows) for token, rows in batch.items()))

    async def _record(self, token: str, rows: list[dict[str, Any]]) -> None:
        """Record one lease's rows, patiently: a repeat is harmless, since the lease fences a second effect."""
        pause_seconds = 0.1
        give_up_at = self._clock.monotonic() + GIVE_UP_SECONDS
        while True:
            try:
                answer = await deliveries.record(self._database, token, rows)
            except AppError as error:
                if self._clock.monotonic() >= give_up_at:
                    log.error("results_given_up", error, rows=len(rows))
                    return
                log.warning("results_not_recorded", error, rows=len(rows))
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(5.0, 2 * pause_seconds)
            else:
                self.tally["recorded"] += answer["recorded"]
                self.tally["fenced"] += answer["fenced"]
                return
