"""The dispatcher: claims, sends and records until nothing is left or its time is up.

Each channel runs by itself, so that a slow provider holds up nobody else's. Within a channel one task keeps a small
stock of claimed messages, several send, and a recorder writes what came of it. Nothing is kept in memory that the
lease in the database does not know: a dispatcher may die at any await.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared import clock as clocks
from shared import deliveries
from shared.deliveries import Lease, ServiceDatabase
from shared.doubts import Doubts
from shared.errors import AppError
from shared.log import log
from shared.messages import Adapter
from shared.pace import Pace
from shared.recorder import Recorder
from shared.sender import Chunk, Sender, chunks
from shared.values import Channel

PATIENCE_SECONDS = 15.0  # a wait longer than this is the timer's business, not a running dispatcher's
STOCK_PER_PLACE = 20  # messages claimed at once for each call in flight
BATCHES_IN_FLIGHT = 4  # where a request carries many messages
DOUBTS_PAUSE_SECONDS = 1.0


@dataclass(slots=True, frozen=True)
class Limits:
    """What one dispatcher may use: seconds of work and of a lease, calls in flight a channel, seconds a call."""

    budget_seconds: float
    lease_seconds: int
    in_flight: int
    call_seconds: float


@dataclass(slots=True, frozen=True)
class Run:
    """What the channels of one run share: who runs, until when (monotonic seconds), and whom to tell."""

    worker: str
    stop_at: float
    on_backlog: Callable[[], None]
    is_stopping: Callable[[], bool]


class ChannelRun:
    """One channel's share of a dispatcher's run."""

    def __init__(
        self, adapter: Adapter, database: ServiceDatabase, limits: Limits, run: Run, clock: clocks.Clock
    ) -> None:
        self._channel = adapter.channel
        self._database = database
        self._limits = limits
        self._run = run
        self._clock = clock
        self._recorder = Recorder(database, clock)
        pace = Pace(limits.in_flight, clock)
        self._sender = Sender(adapter, self._recorder, pace, is_stopping=run.is_stopping, clock=clock)
        self._doubts = Doubts(
            self._sender, call_seconds=limits.call_seconds, is_stopping=run.is_stopping, clock=clock
        )
        self.leaves_work = False

    @property
    def tally(self) -> Counter[str]:
        """Outcomes by name, and `recorded` and `fenced` rows."""
        return self._recorder.tally

    async def work(self) -> None:
        """Settle what is in doubt and send what can be claimed, until nothing is due or the time is up."""
        try:
            sending = asyncio.create_task(self._send_claims())
            await self._settle_doubts(sending)
            await sending
        finally:
            await self._recorder.close()

    def _is_over(self) -> bool:
        """The budget is spent, or the platform wants this process to end: nothing more is claimed."""
        return self._clock.monotonic() >= self._run.stop_at or self._run.is_stopping()

    async def _send_claims(self) -> None:
        size = self._sender.adapter.batch_size
        places, batch = BATCHES_IN_FLIGHT, size
        if size == 1:
            places, batch = self._limits.in_flight, self._limits.in_flight * STOCK_PER_PLACE
        stock: asyncio.Queue[Chunk | None] = asyncio.Queue(
            maxsize=places if size > 1 else max(places, batch // 2)
        )
        senders = [asyncio.create_task(self._send_stock(stock)) for _ in range(places)]
        try:
            while (claim := await self._claim(batch)) is not None:
                lease, begin_by = claim
                if len(lease.messages) == batch:
                    self._run.on_backlog()
                for chunk in chunks(lease, lease.messages, size, begin_by):
                    await stock.put(chunk)
        finally:
            for _ in senders:
                await stock.put(None)
            await asyncio.gather(*senders)

    async def _send_stock(self, stock: asyncio.Queue[Chunk | None]) -> None:
        while (chunk := await stock.get()) is not None:
            await self._sender.send(chunk)

    async def _claim(self, batch: int) -> tuple[Lease, float] | None:
        """The next lease with the instant by which its last call must begin; None when this run is over."""
        while not self._is_over() and self._sender.halted is None:
            asked_at = self._clock.monotonic()
            try:
                claim = await deliveries.claim(
                    self._database,
                    self._channel,
                    batch=batch,
                    lease_seconds=self._limits.lease_seconds,
                    worker=self._run.worker,
                )
            except AppError as error:
                log.warning("claim_failed", error, channel=self._channel.value)
                await asyncio.sleep(0.5)
                continue
            if claim.lease is not None:
                return claim.lease, self._begin_by(asked_at)
            if claim.wait_seconds is None or claim.wait_seconds > PATIENCE_SECONDS:
                return None
            await asyncio.sleep(max(0.02, claim.wait_seconds))
        self.leaves_work = True
        return None

    async def _settle_doubts(self, sending: asyncio.Task[None]) -> None:
        """What others left behind first, then what this run itself is unsure of."""
        while not self._is_over():
            asked_at = self._clock.monotonic()
            lease = None
            try:
                lease = await deliveries.claim_unknown(
                    self._database,
                    self._channel,
                    lease_seconds=self._limits.lease_seconds,
                    worker=self._run.worker,
                )
            except AppError as error:
                log.warning("claim_failed", error, channel=self._channel.value)
            if lease is not None:
                await self._doubts.settle(lease, self._begin_by(asked_at))
            elif sending.done():
                return
            else:
                await asyncio.wait({sending}, timeout=DOUBTS_PAUSE_SECONDS)

    def _begin_by(self, asked_at: float) -> float:
        """A lease counts from before it was asked for, and the longest call must end within it."""
        return asked_at + self._limits.lease_seconds - self._limits.call_seconds


class Dispatcher:
    """Runs every channel side by side."""

    def __init__(
        self,
        database: ServiceDatabase,
        load: Callable[[Channel], Adapter],
        limits: Limits,
        *,
        worker: str,
        channels: Sequence[Channel] = tuple(Channel),
        on_backlog: Callable[[], None] | None = None,
        is_stopping: Callable[[], bool] = lambda: False,
        clock: clocks.Clock = clocks.system,
    ) -> None:
        self._database = database
        self._load = load
        self._limits = limits
        self._worker = worker
        self._channels = channels
        self._call_for_help = on_backlog
        self._is_stopping = is_stopping
        self._clock = clock

    async def run(self) -> tuple[dict[str, dict[str, int]], bool]:
        """Work until nothing is due or the budget is spent: the tally of each channel, and whether work is left."""
        run = Run(
            self._worker,
            self._clock.monotonic() + self._limits.budget_seconds,
            self._on_backlog,
            self._is_stopping,
        )
        runs = [
            ChannelRun(self._load(each), self._database, self._limits, run, self._clock)
            for each in self._channels
        ]
        ended = await asyncio.gather(*(each.work() for each in runs), return_exceptions=True)
        for channel, fault in zip(self._channels, ended, strict=True):
            if isinstance(fault, Exception):  # the other channels have finished; its leases end by themselves
                log.error("channel_failed", fault, channel=channel.value)
        tally = {
            channel.value: dict(each.tally)
            for channel, each in zip(self._channels, runs, strict=True)
            if each.tally
        }
        return tally, any(each.leaves_work for each in runs)

    def _on_backlog(self) -> None:
        """A full batch: there is work for another dispatcher, once."""
        if self._call_for_help is not None:
            self._call_for_help()
            self._call_for_help = None
