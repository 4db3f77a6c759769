"""Calls in flight: halved by a throttle once a burst, one more a second afterwards, never above the setting."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from shared.clock import FrozenClock
from shared.pace import SMALLEST, Pace

START = datetime(2026, 1, 1, tzinfo=UTC)


def answer(pace: Pace, *, throttled: bool) -> None:
    asyncio.run(pace.enter())
    pace.leave(throttled=throttled)


def test_a_burst_of_throttles_halves_once() -> None:
    clock = FrozenClock(START)
    pace = Pace(48, clock)
    for _ in range(10):
        answer(pace, throttled=True)
    assert pace.limit == 24
    clock.advance(1)
    answer(pace, throttled=True)
    assert pace.limit == 12


def test_it_grows_by_one_a_second_up_to_the_setting() -> None:
    clock = FrozenClock(START)
    pace = Pace(48, clock)
    answer(pace, throttled=True)
    for second in range(1, 40):
        clock.advance(1)
        answer(pace, throttled=False)
        assert pace.limit == min(48, 24 + second)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=50), st.integers(SMALLEST, 100))
def test_the_limit_stays_between_the_smallest_and_the_setting(
    answers: list[tuple[bool, float]], most: int
) -> None:
    clock = FrozenClock(START)
    pace = Pace(most, clock)
    for throttled, seconds in answers:
        clock.advance(seconds)
        answer(pace, throttled=throttled)
        assert SMALLEST <= pace.limit <= most
