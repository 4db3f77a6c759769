"""Settles sends in doubt: the provider is asked, or sent the same again where it drops repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared import clock as clocks
from shared import deliveries
from shared.deliveries import Lease
from shared.errors import SendError
from shared.log import log
from shared.messages import Message, Outcome
from shared.sender import Sender, chunks
from shared.values import FailureClass

LONGEST_LOOK_UP_WAIT_SECONDS = 5.0


class Doubts:
    """One channel's leases in doubt. `call_seconds` is the longest that one provider call may take."""

    def __init__(
        self, sender: Sender, *, call_seconds: float, is_stopping: Callable[[], bool], clock: clocks.Clock
    ) -> None:
        self._sender = sender
        self._call_seconds = call_seconds
        self._is_stopping = is_stopping
        self._clock = clock

    async def settle(self, lease: Lease, begin_by: float) -> None:
        """Find out about every delivery of the lease and keep what was found; no call begins after `begin_by`."""
        if self._sender.adapter.reconciles_by_resending:
            await self._send_again(lease, begin_by)
        else:
            await asyncio.gather(*(self._look_up(lease, each, begin_by) for each in lease.messages))
        for row in deliveries.unanswerable(lease, "unclear"):
            self._sender.recorder.add(lease.token, row)

    async def _send_again(self, lease: Lease, begin_by: float) -> None:
        """The receiver drops a repeat of the key, so sending again is asking. A stale message is not sent."""
        now = self._clock.epoch()
        fresh = []
        for message in lease.messages:
            if message.expires_at is not None and message.expires_at <= now:
                self._sender.recorder.add(lease.token, deliveries.result(message, "unclear"))
            else:
                fresh.append(message)
        size = self._sender.adapter.batch_size
        await asyncio.gather(*(self._sender.send(each) for each in chunks(lease, fresh, size, begin_by)))

    async def _look_up(self, lease: Lease, message: Message, begin_by: float) -> None:
        """Ask about one message until the provider answers: a look-up that is refused says nothing about it."""
        outcome: Outcome | str | None = None
        pace = self._sender.pace
        while outcome is None and not self._is_stopping() and self._clock.monotonic() < begin_by:
            await pace.enter()
            throttled = False
            wait_seconds = 0.0
            try:
                outcome = await self._found(lease, message)
            except SendError as error:
                throttled = error.failure_class is FailureClass.THROTTLE
                wait_seconds = min(LONGEST_LOOK_UP_WAIT_SECONDS, error.retry_after_seconds or 1.0)
            except Exception as error:
                log.error("adapter_failed", error, channel=self._sender.adapter.channel.value)
                outcome = "unclear"
            finally:
                pace.leave(throttled=throttled)
            await asyncio.sleep(wait_seconds)
        self._sender.recorder.add(lease.token, deliveries.result(message, outcome or "unclear"))

    async def _found(self, lease: Lease, message: Message) -> Outcome | str:
        """`absent` only once the provider had the time to list what it took: two calls after the last attempt."""
        found = await self._sender.adapter.look_up(message, lease.since)
        if found is not None:
            return found
        return "absent" if lease.doubted_seconds >= 2 * self._call_seconds else "unclear"
