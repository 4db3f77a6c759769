"""The control doors: read the journal, turn knobs, begin anew."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from infra.local.carriers.exchange import Reply, Request, problem, reply_json
from infra.local.carriers.knobs import CHANNELS, KnobError
from infra.local.carriers.world import World

MAXIMUM_PAGE = 10_000


class BadRequestError(Exception):
    """A control request that cannot be understood; the message says why."""


def document_of(request: Request) -> dict[str, Any]:
    """The request's JSON object (an empty body is an empty object). Raises BadRequestError."""
    if not request.body:
        return {}
    try:
        document = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise BadRequestError("the body must be a JSON object")
    return document


def number_of(request: Request, name: str, default: float, low: float, high: float) -> float:
    """A number from the query. Raises BadRequestError."""
    text = request.query().get(name, [None])[0]
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadRequestError(f"{name} must be a number from {low:g} to {high:g}")
    return value


class Control:
    """Handlers of /journal, /knobs and /reset."""

    def __init__(self, world: World) -> None:
        self._world = world

    def journal(self, request: Request) -> Reply:
        """GET /journal?after=&limit=&channel=: accepted rows in order; `next_after` says where to go on."""
        after = int(number_of(request, "after", 0, 0, 1e15))
        limit = int(number_of(request, "limit", MAXIMUM_PAGE, 1, MAXIMUM_PAGE))
        rows, next_after = self._world.journal.page(after, limit, self._channel(request))
        return reply_json(200, {"rows": [row.document() for row in rows], "next_after": next_after})

    def requests(self, request: Request) -> Reply:
        """GET /journal/requests?since=&limit=&channel=: all requests begun since then, newest first."""
        since = number_of(request, "since", 0, 0, 1e15)
        limit = int(number_of(request, "limit", MAXIMUM_PAGE, 1, MAXIMUM_PAGE))
        found = self._world.journal.requests(since, self._channel(request))
        return reply_json(200, {"requests": list(islice(found, limit))})

    def counts(self, request: Request) -> Reply:
        """GET /journal/counts: numbers a channel, and of the receipts."""
        counts: dict[str, object] = {
            channel: self._world.journal.counts[channel].document() for channel in CHANNELS
        }
        return reply_json(200, {**counts, "receipts": self._world.callbacks.counts()})

    def show_knobs(self, request: Request) -> Reply:
        """GET /knobs."""
        return reply_json(200, {**self._world.board.document(), "seed": self._world.chance.seed})

    def turn_knobs(self, request: Request) -> Reply:
        """POST /knobs {"preset":, "seed":, "all": {}, "<channel>": {}}; a seed begins the chance anew."""
        changes = document_of(request)
        seed = _seed(changes)
        try:
            self._world.board.turn({name: value for name, value in changes.items() if name != "seed"})
        except KnobError as error:
            return problem(400, "invalid_knob", str(error))
        if seed is not None:
            self._world.new_chance(seed)
        return self.show_knobs(request)

    def reset(self, request: Request) -> Reply:
        """POST /reset {"seed":}: forget all traffic; knobs stay as they are."""
        self._world.reset(_seed(document_of(request)))
        return Reply(204, b"")

    def health(self, request: Request) -> Reply:
        """GET /healthz."""
        return Reply(204, b"")

    def _channel(self, request: Request) -> str | None:
        channel = request.query().get("channel", [None])[0]
        if channel is not None and channel not in CHANNELS:
            raise BadRequestError(f"channel must be one of {', '.join(CHANNELS)}")
        return channel


def _seed(document: dict[str, Any]) -> int | None:
    seed = document.get("seed")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        raise BadRequestError("seed must be a whole number from 0 to 9223372036854775807")
    return seed
