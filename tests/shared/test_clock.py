"""Time and chance: ids sort by time, and a frozen clock moves only when told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from shared.clock import Clock, FrozenClock, system

START = datetime(2026, 10, 25, 0, 59, 59, 123456, UTC)


def test_now_is_aware_and_in_utc() -> None:
    assert system.now().utcoffset() == timedelta(0)
    assert abs(system.now().timestamp() - system.epoch()) < 1


def test_a_uuid7_has_its_version_variant_and_time() -> None:
    made = FrozenClock(START).uuid7()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert made.int >> 80 == int(START.timestamp() * 1000)


def test_uuid7s_sort_by_time_below_a_millisecond() -> None:
    clock = FrozenClock(START)
    made = []
    for _ in range(500):
        made.append(clock.uuid7())
        clock.advance(0.000_25)
    assert made == sorted(made)
    assert len(set(made)) == 500


def test_uuid4s_are_version_4_and_differ() -> None:
    made = {system.uuid4() for _ in range(1000)}
    assert len(made) == 1000
    assert {one.version for one in made} == {4}


def test_a_frozen_clock_stands_still_and_repeats_itself() -> None:
    one, other = FrozenClock(START, seed=3), FrozenClock(START, seed=3)
    assert one.now() == one.now() == START
    assert [one.uuid7(), one.uniform(1, 2)] == [other.uuid7(), other.uniform(1, 2)]
    one.advance(60)
    assert one.now() - START == timedelta(seconds=60)
    assert one.monotonic() == 60


def test_uniform_stays_between_its_bounds() -> None:
    drawn = [FrozenClock(START, seed=seed).uniform(0.5, 1.5) for seed in range(200)]
    assert all(0.5 <= one < 1.5 for one in drawn)
    assert max(drawn) - min(drawn) > 0.8


def test_monotonic_never_goes_back() -> None:
    clock = Clock()
    before = clock.monotonic()
    asyncio.run(asyncio.sleep(0.01))
    assert clock.monotonic() > before
