"""The dispatcher: claims, sends and records until nothing is left or its time is up. The only code that sends.

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
from shared.errors import AppError, SendError
from shared.log import log
from shared.messages import Adapter, Message, Outcome
from shared.pace import Pace
from shared.recorder import Recorder
from shared.values import Channel, FailureClass

PATIENCE_SECONDS = 2.0  # a wait longer than this is the timer's business, not a running dispatcher's
STOCK_PER_PLACE = 10  # messages claimed at once for each call in flight
DOUBTS_PAUSE_SECONDS = 1.0
LONGEST_LOOK_UP_WAIT_SECONDS = 5.0
BATCHES_IN_FLIGHT = 4  # where a request carries many messages


@dataclass(slots=True, frozen=True)
class Limits:
    """What one dispatcher may use: seconds of work and of a lease, calls in flight a channel, seconds a call."""

    budget_seconds: float
    lease_seconds: int
    in_flight: int
    call_seconds: float


@dataclass(slots=True, frozen=True)
class Chunk:
    """Messages of one lease that go out in one request, not to be begun after `begin_by` (monotonic seconds)."""

    lease: Lease
    messages: Sequence[Message]
    begin_by: float


class ChannelRun:
    """One channel's share of a dispatcher's run."""

    def __init__(
        self,
        channel: Channel,
        adapter: Callable[[], Adapter],
        database: ServiceDatabase,
        limits: Limits,
        *,
        worker: str,
        stop_at: float,
        clock: clocks.Clock,
        on_backlog: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._on_backlog = on_backlog
        self._is_stopping = is_stopping
        self._channel = channel
        self._make_adapter = adapter
        self._database = database
        self._limits = limits
        self._worker = worker
        self._stop_at = stop_at
        self._clock = clock
        self._recorder = Recorder(database, clock)
        self._pace = Pace(limits.in_flight, clock)
        self._halted: str | None = None
        self.leaves_work = False

    @property
    def tally(self) -> Counter[str]:
        """Outcomes by name, and `recorded` and `fenced` rows."""
        return self._recorder.tally

    async def run(self) -> None:
        """Settle what is in doubt and send what can be claimed, until nothing is due or the time is up."""
        try:
            sending = asyncio.create_task(self._send_claims())
            await self._settle_doubts(sending)
            await sending
        finally:
            await self._recorder.close()

    def _is_over(self) -> bool:
        """The budget is spent, or the platform wants this process to end: nothing more is claimed."""
        return self._clock.monotonic() >= self._stop_at or self._is_stopping()

    async def _send_claims(self) -> None:
        adapter = self._make_adapter()
        places, batch = BATCHES_IN_FLIGHT, adapter.batch_size
        if adapter.batch_size == 1:
            places, batch = self._limits.in_flight, self._limits.in_flight * STOCK_PER_PLACE
        claim = await self._claim(batch)
        stock: asyncio.Queue[Chunk | None] = asyncio.Queue(maxsize=max(places, batch // 2))
        senders = [asyncio.create_task(self._send_stock(adapter, stock)) for _ in range(places)]
        try:
            while claim is not None:
                if len(claim[0].messages) == batch:
                    self._on_backlog()
                for chunk in self._chunks(claim, adapter.batch_size):
                    await stock.put(chunk)
                claim = await self._claim(batch)
        finally:
            for _ in senders:
                await stock.put(None)
            await asyncio.gather(*senders)

    async def _claim(self, batch: int) -> tuple[Lease, float] | None:
        """The next lease with the instant by which its last call must begin; None when this run is over."""
        while not self._is_over() and self._halted is None:
            asked_at = self._clock.monotonic()
            try:
                claim = await deliveries.claim(
                    self._database,
                    self._channel,
                    batch=batch,
                    lease_seconds=self._limits.lease_seconds,
                    worker=self._worker,
                )
            except AppError as error:
                log.warning("claim_failed", error, channel=self._channel.value)
                await asyncio.sleep(0.5)
                continue
            if claim.lease is not None:
                return claim.lease, asked_at + self._limits.lease_seconds - self._limits.call_seconds
            if claim.wait_seconds is None or claim.wait_seconds > PATIENCE_SECONDS:
                return None
            await asyncio.sleep(max(0.02, claim.wait_seconds))
        self.leaves_work = True
        return None

    def _chunks(self, claim: tuple[Lease, float], size: int) -> list[Chunk]:
        lease, begin_by = claim
        return [
            Chunk(lease, lease.messages[start : start + size], begin_by)
            for start in range(0, len(lease.messages), size)
        ]

    async def _send_stock(self, adapter: Adapter, stock: asyncio.Queue[Chunk | None]) -> None:
        while (chunk := await stock.get()) is not None:
            await self._pace.enter()
            throttled = False
            try:
                throttled = await self._send(adapter, chunk)
            finally:
                self._pace.leave(throttled=throttled)

    async def _send(self, adapter: Adapter, chunk: Chunk) -> bool:
        """Send one chunk and keep its results; True when the provider throttled. Too late for the lease: back."""
        outcomes: Sequence[Outcome | str]
        if self._halted is not None or self._is_stopping() or self._clock.monotonic() >= chunk.begin_by:
            outcomes = ["returned"] * len(chunk.messages)
        else:
            outcomes = await self._call(adapter, chunk)
        throttled = False
        for message, outcome in zip(chunk.messages, outcomes, strict=True):
            self._recorder.add(chunk.lease.token, deliveries.result(message, outcome))
            if isinstance(outcome, SendError):
                throttled = throttled or outcome.failure_class is FailureClass.THROTTLE
                if outcome.failure_class is FailureClass.CONFIGURATION:
                    self._halt(outcome)
        return throttled

    async def _call(self, adapter: Adapter, chunk: Chunk) -> Sequence[Outcome]:
        try:
            return await adapter.send(chunk.messages, chunk.lease.key)
        except Exception as error:  # an adapter's own fault: perhaps it was sent, so it is asked about
            log.error("adapter_failed", error, channel=self._channel.value)
            return [SendError(FailureClass.UNKNOWN, "adapter_failed")] * len(chunk.messages)

    def _halt(self, error: SendError) -> None:
        """A wrong credential or sender fails for everyone: stop this channel instead of burning the whole audience."""
        if self._halted is None:
            self._halted = error.code
            log.error("channel_halted", channel=self._channel.value, code=error.code)

    async def _settle_doubts(self, sending: asyncio.Task[None]) -> None:
        """Ask about what is in doubt: what others left behind first, then what this run itself is unsure of."""
        while not self._is_over():
            asked_at = self._clock.monotonic()
            try:
                lease = await deliveries.claim_unknown(
                    self._database,
                    self._channel,
                    lease_seconds=self._limits.lease_seconds,
                    worker=self._worker,
                )
            except AppError as error:
                log.warning("claim_failed", error, channel=self._channel.value)
                lease = None
            if lease is None:
                if sending.done():
                    return
                await asyncio.wait({sending}, timeout=DOUBTS_PAUSE_SECONDS)
                continue
            begin_by = asked_at + self._limits.lease_seconds - self._limits.call_seconds
            adapter = self._make_adapter()
            if adapter.reconciles_by_resending:
                await self._send_again(adapter, lease, begin_by)
            else:
                await self._ask(adapter, lease, begin_by)

    async def _send_again(self, adapter: Adapter, lease: Lease, begin_by: float) -> None:
        """The receiver drops a repeat of the key, so sending again is asking. A stale message is not sent."""
        now = self._clock.epoch()
        stale = [each for each in lease.messages if each.expires_at is not None and each.expires_at <= now]
        for message in stale:
            self._recorder.add(lease.token, deliveries.result(message, "unclear"))
        fresh = [each for each in lease.messages if each not in stale]
        size = adapter.batch_size
        chunks = [Chunk(lease, fresh[at : at + size], begin_by) for at in range(0, len(fresh), size)]
        await asyncio.gather(*(self._send_one(adapter, chunk) for chunk in chunks))
        for row in deliveries.unanswerable(lease, "unclear"):
            self._recorder.add(lease.token, row)

    async def _send_one(self, adapter: Adapter, chunk: Chunk) -> None:
        await self._pace.enter()
        throttled = False
        try:
            throttled = await self._send(adapter, chunk)
        finally:
            self._pace.leave(throttled=throttled)

    async def _ask(self, adapter: Adapter, lease: Lease, begin_by: float) -> None:
        await asyncio.gather(*(self._look_up(adapter, lease, each, begin_by) for each in lease.messages))
        for row in deliveries.unanswerable(lease, "unclear"):
            self._recorder.add(lease.token, row)

    async def _look_up(self, adapter: Adapter, lease: Lease, message: Message, begin_by: float) -> None:
        """Ask about one message until the provider answers: a look-up that is refused says nothing about it."""
        outcome: Outcome | str | None = None
        while outcome is None and not self._is_stopping() and self._clock.monotonic() < begin_by:
            await self._pace.enter()
            throttled = False
            try:
                outcome = await self._found(adapter, lease, message)
            except SendError as error:
                throttled = error.failure_class is FailureClass.THROTTLE
                wait_seconds = min(LONGEST_LOOK_UP_WAIT_SECONDS, error.retry_after_seconds or 1.0)
            except Exception as error:
                log.error("adapter_failed", error, channel=self._channel.value)
                outcome = "unclear"
            finally:
                self._pace.leave(throttled=throttled)
            if outcome is None:
                await asyncio.sleep(wait_seconds)
        outcome = outcome or "unclear"
        self._recorder.add(lease.token, deliveries.result(message, outcome))

    async def _found(self, adapter: Adapter, lease: Lease, message: Message) -> Outcome | str:
        """`absent` only once the provider had the time to list what it took: two calls after the attempt."""
        found = await adapter.look_up(message, lease.since)
        if found is not None:
            return found
        is_settled = self._clock.epoch() - lease.since >= 2 * self._limits.call_seconds
        return "absent" if is_settled else "unclear"


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
        self._call_for_help = on_backlog
        self._is_stopping = is_stopping
        self._database = database
        self._load = load
        self._limits = limits
        self._worker = worker
        self._channels = channels
        self._clock = clock
        self._adapters: dict[Channel, Adapter] = {}

    async def run(self) -> tuple[dict[str, dict[str, int]], bool]:
        """Work until nothing is due or the budget is spent: the tally of each channel, and whether work is left."""
        stop_at = self._clock.monotonic() + self._limits.budget_seconds
        runs = {
            channel: ChannelRun(
                channel,
                lambda channel=channel: self._adapter(channel),  # type: ignore[misc]
                self._database,
                self._limits,
                worker=self._worker,
                stop_at=stop_at,
                clock=self._clock,
                on_backlog=self._on_backlog,
                is_stopping=self._is_stopping,
            )
            for channel in self._channels
        }
        await asyncio.gather(*(run.run() for run in runs.values()))
        tally = {channel.value: dict(run.tally) for channel, run in runs.items() if run.tally}
        return tally, any(run.leaves_work for run in runs.values())

    def _on_backlog(self) -> None:
        """A full batch: there is work for another dispatcher, once."""
        if self._call_for_help is not None:
            self._call_for_help()
            self._call_for_help = None

    def _adapter(self, channel: Channel) -> Adapter:
        if channel not in self._adapters:
            self._adapters[channel] = self._load(channel)
        return self._adapters[channel]
