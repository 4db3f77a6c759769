"""How many calls may be in flight: halved when a provider throttles, one more a second while it does not."""

from __future__ import annotations

import asyncio

from shared import clock as clocks

SMALLEST = 2
HALVING_SECONDS = 1.0  # one 429 seldom comes alone: those of one burst halve once


class Pace:
    """A limit of calls in flight that learns from the provider: additive increase, multiplicative decrease."""

    def __init__(self, in_flight: int, clock: clocks.Clock = clocks.system) -> None:
        self._most = in_flight
        self._limit = float(in_flight)
        self._clock = clock
        self._changed_at = clock.monotonic()
        self._halved_at = float("-inf")
        self._running = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return max(SMALLEST, int(self._limit))

    async def enter(self) -> None:
        """Wait for a place."""
        while self._running >= self.limit:
            self._free.clear()
            await self._free.wait()
        self._running += 1

    def leave(self, *, throttled: bool) -> None:
        """Give the place back and say how the provider answered."""
        self._running -= 1
        now = self._clock.monotonic()
        if throttled:
            if now - self._halved_at >= HALVING_SECONDS:
                self._limit = max(SMALLEST, self._limit / 2)
                self._halved_at = now
        elif self._limit < self._most:
            self._limit = min(self._most, self._limit + now - self._changed_at)
        self._changed_at = now
        self._free.set()
