"""Receipts: when each status is told, and what chance does to it (lost, twice, late, out of order)."""

from __future__ import annotations

from infra.local.carriers.callbacks import Job
from infra.local.carriers.chance import Draws
from infra.local.carriers.knobs import ChannelKnobs
from infra.local.carriers.world import World

_JITTER, _LOST, _DUPLICATE, _LATE, _AGAIN = range(5)
AGAIN_MS = 500.0  # a duplicate follows within this and the jitter
_CALM: Draws = (0.0,) * 16


def spread(world: World, channel: str, destination: str, told: list[tuple[float, Job]]) -> None:
    """Schedule a record's receipts: (seconds from now, job) in their true order, the last one final."""
    knobs = world.board.of[channel]
    if knobs.receipts == "off":
        return
    if knobs.receipts == "final":
        told = told[-1:]
    for number, (after_seconds, job) in enumerate(told):
        draws = world.chance.draw(f"receipt {number}", channel, destination) if _uneven(knobs) else _CALM
        _schedule(world, knobs, draws, after_seconds, job)


def _uneven(knobs: ChannelKnobs) -> bool:
    return (
        knobs.receipt_jitter_ms > 0
        or knobs.rate_receipt_lost > 0
        or knobs.rate_receipt_duplicate > 0
        or knobs.rate_receipt_late > 0
    )


def _schedule(world: World, knobs: ChannelKnobs, draws: Draws, after_seconds: float, job: Job) -> None:
    if draws[_LOST] < knobs.rate_receipt_lost:
        world.callbacks.note("lost")
        return
    after_seconds += draws[_JITTER] * knobs.receipt_jitter_ms / 1000
    if draws[_LATE] < knobs.rate_receipt_late:
        world.callbacks.note("late")
        after_seconds += knobs.receipt_late_ms / 1000
    world.callbacks.schedule(job, after_seconds)
    if draws[_DUPLICATE] < knobs.rate_receipt_duplicate:
        world.callbacks.note("duplicated")
        again = Job(job.kind, job.url, job.build, job.retries, job.retry_on)
        later_seconds = draws[_AGAIN] * (knobs.receipt_jitter_ms + AGAIN_MS) / 1000
        world.callbacks.schedule(again, after_seconds + later_seconds)
