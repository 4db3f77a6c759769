"""The webhook receiver: takes every POST under /sink/, remembers it, verifies nothing.

It keeps the Standard Webhooks headers and a hash of the body (the body itself with the knob `keep_body`),
so that a test can verify. `/sink/answer-<status>/...` always answers that status (410 disables an endpoint,
302 must not be followed). Source: https://www.standardwebhooks.com
"""

from __future__ import annotations

import re
from http import HTTPStatus

from infra.local.carriers import faults
from infra.local.carriers.exchange import Reply, Request, problem, retry_after
from infra.local.carriers.journal import Row
from infra.local.carriers.world import World

PREFIX = "/sink/"
_FIXED = re.compile(r"/sink/answer-([1-5][0-9]{2})(?:/|$)")
_STATUSES = frozenset(status.value for status in HTTPStatus if status.value >= 200)
_KEPT_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature", "content-type")


class Dialect:
    """How somebody else's server says that it will not or cannot."""

    def throttled(self, retry_after_seconds: float) -> Reply:
        """429, with Retry-After where there is a wait."""
        return Reply(429, b"slow down\n", retry_after(retry_after_seconds))

    def broken(self, status: int) -> Reply:
        """500 or 503 (507: the journal is full)."""
        return Reply(status, b"out of order\n")


class Sink:
    """The receiver of one process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dialect = Dialect()

    def receive(self, request: Request) -> Reply:
        """POST /sink/<anything>: 200, unless a knob or the path says otherwise."""
        if request.method != "POST":
            return problem(405, "method_not_allowed", "A webhook is posted.")
        destination = f"http://{request.header(b'host') or 'localhost'}{request.path}"
        reference = request.header(b"webhook-id")

        def accept(unheard: bool, delay_seconds: float) -> Reply:
            fixed = _FIXED.match(request.path)
            if fixed and int(fixed[1]) in _STATUSES and not 200 <= int(fixed[1]) < 300:
                return Reply(int(fixed[1]), b"", b"Location: http://127.0.0.1:9/\r\n")
            return self._accept(request, destination, reference, unheard)

        references = (reference,) if reference else ()
        return faults.carry(self._world, "webhook", request, destination, references, self._dialect, accept)

    def _accept(self, request: Request, destination: str, reference: str | None, unheard: bool) -> Reply:
        headers = {name: request.header(name.encode()) for name in _KEPT_HEADERS}
        row = Row(
            time=self._world.clock(), begun_at=request.begun_at, channel="webhook", provider_id="",
            destination=destination, body=request.body, keep_body=self._world.board.of["webhook"].keep_body,
            reference=reference, request_id=request.header(b"x-request-id"), answer_lost=unheard,
            headers={name: value for name, value in headers.items() if value is not None},
        )  # fmt: skip
        sequence = self._world.journal.accept(row)
        return Reply(200, b"", b"", (sequence, sequence + 1))
