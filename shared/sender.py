"""Sends chunks of a lease through one channel's adapter: in time, at the learned pace, and every outcome kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shared import clock as clocks
from shared import deliveries
from shared.deliveries import Lease
from shared.errors import SendError
from shared.log import log
from shared.messages import Adapter, Message, Outcome
from shared.pace import Pace
from shared.recorder import Recorder
from shared.values import FailureClass


@dataclass(slots=True, frozen=True)
class Chunk:
    """Messages of one lease that go out in one request, not to be begun after `begin_by` (monotonic seconds)."""

    lease: Lease
    messages: Sequence[Message]
    begin_by: float


def chunks(lease: Lease, messages: Sequence[Message], size: int, begin_by: float) -> list[Chunk]:
    """The messages of a lease, `size` to a request."""
    return [Chunk(lease, messages[at : at + size], begin_by) for at in range(0, len(messages), size)]


class Sender:
    """The only code that calls `Adapter.send`."""

    def __init__(
        self,
        adapter: Adapter,
        recorder: Recorder,
        pace: Pace,
        *,
        is_stopping: Callable[[], bool],
        clock: clocks.Clock,
    ) -> None:
        self.adapter = adapter
        self.recorder = recorder
        self.pace = pace
        self.halted: str | None = None  # the code of a configuration failure
        self._is_stopping = is_stopping
        self._clock = clock

    async def send(self, chunk: Chunk) -> None:
        """Wait for a place, send one chunk and keep its results. Too late for the lease: given back."""
        await self.pace.enter()
        throttled = False
        try:
            throttled = await self._send(chunk)
        finally:
            self.pace.leave(throttled=throttled)

    async def _send(self, chunk: Chunk) -> bool:
        """True when the provider throttled."""
        outcomes: Sequence[Outcome | str]
        if self.halted is not None or self._is_stopping() or self._clock.monotonic() >= chunk.begin_by:
            outcomes = ["returned"] * len(chunk.messages)
        else:
            outcomes = await self._call(chunk)
        throttled = False
        for message, outcome in zip(chunk.messages, outcomes, strict=True):
            self.recorder.add(chunk.lease.token, deliveries.result(message, outcome))
            if isinstance(outcome, SendError):
                throttled = throttled or outcome.failure_class is FailureClass.THROTTLE
                if outcome.failure_class is FailureClass.CONFIGURATION:
                    self._halt(outcome)
        return throttled

    async def _call(self, chunk: Chunk) -> Sequence[Outcome]:
        try:
            outcomes = await self.adapter.send(chunk.messages, chunk.lease.key)
            if len(outcomes) != len(chunk.messages):
                raise ValueError("an adapter answers with one outcome a message")
            return outcomes
        except Exception as error:  # an adapter's own fault: perhaps it was sent, so it is asked about
            log.error("adapter_failed", error, channel=self.adapter.channel.value)
            return [SendError(FailureClass.UNKNOWN, "adapter_failed")] * len(chunk.messages)

    def _halt(self, error: SendError) -> None:
        """A wrong credential or sender fails for everyone: stop this channel, don't burn the whole audience."""
        if self.halted is None:
            self.halted = error.code
            log.error("channel_halted", channel=self.adapter.channel.value, code=error.code)
