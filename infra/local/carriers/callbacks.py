"""Callbacks: a bounded pool that posts receipts when they are due, repeats them as asked, and counts."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from infra.local.carriers.poster import Outcome, Poster

MAXIMUM_PENDING = 5_000_000
FIRST_BACKOFF_SECONDS = 0.2
MAXIMUM_BACKOFF_SECONDS = 5.0

Outgoing = tuple[Mapping[str, str], bytes]  # headers and body


@dataclass(slots=True)
class Job:
    """One callback. `build` makes headers and body afresh at each try: a signature may hold the time."""

    kind: str  # sms, voice, gather, email, inbound
    url: str  # without fragment
    build: Callable[[], Outgoing]
    retries: int
    retry_on: frozenset[str]  # of ct (no connection), rt (timeout), 4xx, 5xx
    tried: int = 0
    done: Callable[[Outcome], None] | None = field(default=None)


class Callbacks:
    """Due callbacks in a heap, posted by at most `in_flight` workers."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._poster = Poster(in_flight)
        self._order = itertools.count()
        self._wake = asyncio.Event()
        self._free = asyncio.Semaphore(in_flight)
        self._pump: asyncio.Task[None] | None = None
        self._posting: set[asyncio.Task[None]] = set()
        self._due: list[tuple[float, int, Job]] = []
        self._epoch = 0
        self._reset_counts()

    def _reset_counts(self) -> None:
        self._counts: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()

    async def start(self) -> None:
        """Begin to post."""
        self._pump = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Forget what is pending and close."""
        self.clear()
        for task in (self._pump, *self._posting):
            if task is not None:
                task.cancel()
        await self._poster.close()

    def clear(self) -> None:
        """Forget what is pending and count from 0 again; what is on the wire is no longer counted."""
        self._due.clear()
        self._epoch += 1
        self._reset_counts()

    def schedule(self, job: Job, delay_seconds: float) -> None:
        """Post this after a while. Past the limit of pending callbacks it is dropped and counts as failed."""
        self._counts["scheduled"] += 1
        if len(self._due) >= MAXIMUM_PENDING:
            self._counts["failed"] += 1
            return
        self._push(job, delay_seconds)

    def note(self, what: str) -> None:
        """Count something that chance did to a receipt: `lost`, `duplicated`, `late`."""
        self._counts[what] += 1

    def counts(self) -> dict[str, object]:
        """scheduled = sent + failed + pending; the rest are their details."""
        counts = self._counts
        names = ("scheduled", "sent", "failed", "retried", "lost", "duplicated", "late", "bad_twiml")
        return {
            **{name: counts[name] for name in names},
            "pending": counts["scheduled"] - counts["sent"] - counts["failed"],
            "answers": dict(sorted(self._statuses.items())),
        }

    def _push(self, job: Job, delay_seconds: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + delay_seconds, next(self._order), job))
        if self._due[0][2] is job:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            wait_seconds = self._due[0][0] - time.monotonic() if self._due else None
            if wait_seconds is not None and wait_seconds <= 0:
                await self._free.acquire()
                if self._due:
                    self._begin(heapq.heappop(self._due)[2])
                else:
                    self._free.release()
                continue
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), wait_seconds)
            except TimeoutError:
                continue

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._deliver(job, self._epoch))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def _deliver(self, job: Job, epoch: int) -> None:
        try:
            headers, body = job.build()
            outcome = await self._poster.post(job.url, headers, body)
        finally:
            self._free.release()
        job.tried += 1
        if epoch == self._epoch:
            self._settle(job, outcome)
        elif job.done is not None:
            job.done(outcome)

    def _settle(self, job: Job, outcome: Outcome) -> None:
        self._statuses[str(outcome.status) if outcome.status else outcome.reason] += 1
        if outcome.reason in job.retry_on and job.tried <= job.retries:
            self._counts["retried"] += 1
            self._push(job, min(FIRST_BACKOFF_SECONDS * 2 ** (job.tried - 1), MAXIMUM_BACKOFF_SECONDS))
            return
        self._counts["failed" if outcome.reason else "sent"] += 1
        if job.done is not None:
            job.done(outcome)
