"""Time and chance come from here alone, so that a test can hold both still."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_FRACTION_STEPS = 4096  # the 12 bits of rand_a


class Clock:
    """The machine's clock and its random source. Pass one as a parameter; `system` is the default."""

    def __init__(self) -> None:
        self._random: random.Random = random.SystemRandom()

    def epoch(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring durations."""
        return time.monotonic()

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        return datetime.fromtimestamp(self.epoch(), UTC)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`, for jitter."""
        return low + (high - low) * self.bits(53) / (1 << 53)

    def bits(self, count: int) -> int:
        """A whole number of `count` random bits."""
        return self._random.getrandbits(count)

    def uuid4(self) -> UUID:
        """A random identifier."""
        return UUID(int=self.bits(128) & ~(0xF << 76) & ~(0x3 << 62) | 0x4 << 76 | 0x2 << 62)

    def uuid7(self) -> UUID:
        """An identifier that sorts by time: RFC 9562, 5.7, with microseconds in rand_a (6.2, method 3)."""
        microseconds = int(self.epoch() * 1_000_000)
        milliseconds, rest = divmod(microseconds, 1000)
        fraction = rest * _FRACTION_STEPS // 1000
        return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << 62 | self.bits(62))


class FrozenClock(Clock):
    """A clock that moves only when told and a random source with a seed: for tests and replays."""

    def __init__(self, start: datetime, *, seed: int = 7) -> None:
        super().__init__()
        self._random = random.Random(seed)  # noqa: S311 (a test repeats it)
        self._now = start
        self._elapsed = 0.0

    def epoch(self) -> float:
        return self._now.timestamp()

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move both clocks by `seconds`."""
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds


system = Clock()
