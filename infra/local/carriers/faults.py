"""Faults: one request's way through a carrier that may refuse it, break, or accept it and never say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from infra.local.carriers.chance import Draws
from infra.local.carriers.exchange import Ending, Reply, Request
from infra.local.carriers.journal import JournalFullError
from infra.local.carriers.knobs import ChannelKnobs, Fate
from infra.local.carriers.world import World

_FATE, _JITTER, _STATUS, _HANG = range(4)
EVEN = 0.5
_CALM: Draws = (0.0,) * 16
_UNHEARD = frozenset({Fate.BROKEN_ACCEPTED, Fate.LOST, Fate.HUNG})


class Dialect(Protocol):
    """How a provider says what went wrong."""

    def throttled(self, retry_after_seconds: float) -> Reply:
        """429."""

    def broken(self, status: int) -> Reply:
        """500 or 503."""


Accept = Callable[[bool, float], Reply]
"""Does the work and answers; told whether the caller will not hear of it, and its answer's delay (s)."""


def carry(
    world: World,
    channel: str,
    request: Request,
    destination: str,
    references: Sequence[str],
    dialect: Dialect,
    accept: Accept,
) -> Reply:
    """Take one request to its fate, count it, and return the reply with its delay and ending."""
    knobs = world.board.of[channel]
    draws: Draws = _CALM
    fate = Fate.SERVED
    if knobs.fates or knobs.jitter_ms > 0:
        draws = world.chance.draw("request", channel, destination)
        fate = knobs.fate(draws[_FATE])
    if knobs.requests_per_second > 0 and _past_limit(world, channel, knobs.requests_per_second):
        fate = Fate.THROTTLED
    delay_seconds = (knobs.latency_ms + knobs.jitter_ms * draws[_JITTER]) / 1000
    try:
        reply = _meet(knobs, channel, fate, draws, dialect, accept, delay_seconds)
    except JournalFullError:
        reply = dialect.broken(507)
    if reply.ending is not Ending.HANG:
        reply.delay_seconds = delay_seconds
    status = reply.status if reply.ending is Ending.SEND else 0
    world.journal.note_request(channel, request.begun_at, references, status)
    return reply


def _meet(
    knobs: ChannelKnobs,
    channel: str,
    fate: Fate,
    draws: Draws,
    dialect: Dialect,
    accept: Accept,
    delay_seconds: float,
) -> Reply:
    if fate is Fate.SERVED:
        return accept(False, delay_seconds)
    broken_status = 500 if draws[_STATUS] < EVEN else 503
    if fate is Fate.THROTTLED:
        return dialect.throttled(knobs.retry_after_seconds)
    if fate is Fate.BROKEN:
        return dialect.broken(broken_status)
    if fate is Fate.HUNG and draws[_HANG] < EVEN:
        return _unanswered(Reply(504, b""), Ending.HANG)
    # To a webhook's sender any 2xx is a success, so there a page of garbage means that it was taken.
    if fate is Fate.GARBAGE and channel != "webhook":
        return garbage()
    reply = accept(fate in _UNHEARD, delay_seconds)
    # What is wrong in itself is said plainly; whatever else was done is now hidden.
    return reply if reply.status >= 400 else _hidden(reply, fate, dialect, broken_status)


def _hidden(reply: Reply, fate: Fate, dialect: Dialect, broken_status: int) -> Reply:
    if fate is Fate.GARBAGE:
        return garbage()
    if fate is Fate.BROKEN_ACCEPTED:
        return dialect.broken(broken_status)
    return _unanswered(reply, Ending.DROP if fate is Fate.LOST else Ending.HANG)


def garbage() -> Reply:
    """What a proxy in between sometimes says: 200 and a page that is no JSON."""
    return Reply(200, b"<html><body><h1>It works!</h1></body>", b"Content-Type: text/html\r\n")


def _unanswered(reply: Reply, ending: Ending) -> Reply:
    reply.ending = ending
    return reply


def _past_limit(world: World, channel: str, requests_per_second: float) -> bool:
    second = int(world.clock())
    began, seen = world.windows.get(channel, (second, 0))
    seen = seen + 1 if began == second else 1
    world.windows[channel] = (second, seen)
    return seen > requests_per_second
