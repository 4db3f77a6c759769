"""What all of Resend's endpoints have in common: the key, error bodies, rate limit headers.

Sources: https://resend.com/docs/api-reference/errors, https://resend.com/docs/api-reference/rate-limit
"""

from __future__ import annotations

import hmac

from infra.local.carriers.exchange import JSON_TYPE, Reply, Request, encode, retry_after
from infra.local.carriers.world import World

UNLIMITED_PER_SECOND = 10_000  # what the headers say when no limit is set


def error(status: int, name: str, message: str, headers: bytes = b"") -> Reply:
    """An error as Resend writes it."""
    return Reply(
        status, encode({"statusCode": status, "message": message, "name": name}), JSON_TYPE + headers
    )


def answer(world: World, status: int, body: bytes, rows: tuple[int, int] | None = None) -> Reply:
    """A JSON answer with the rate limit's state."""
    return Reply(status, body, JSON_TYPE + limit_headers(world), rows)


def limit_headers(world: World) -> bytes:
    """ratelimit-limit, -remaining and -reset (seconds) of the current second."""
    limit = int(world.board.of["email"].requests_per_second) or UNLIMITED_PER_SECOND
    second, seen = world.windows.get("email", (0, 0))
    if second != int(world.clock()):
        seen = 0
    remaining = max(limit - seen, 0)
    return b"ratelimit-limit: %d\r\nratelimit-remaining: %d\r\nratelimit-reset: 1\r\n" % (limit, remaining)


class Dialect:
    """How Resend says that it will not or cannot."""

    def __init__(self, world: World) -> None:
        self._world = world

    def throttled(self, retry_after_seconds: float) -> Reply:
        """429, with retry-after where there is a wait."""
        headers = limit_headers(self._world) + retry_after(retry_after_seconds)
        text = "Too many requests. See rate limit response headers for more information."
        return error(429, "rate_limit_exceeded", text, headers)

    def broken(self, status: int) -> Reply:
        """500 application_error or 503 internal_server_error (507: the journal is full)."""
        if status == 500:
            return error(500, "application_error", "An unexpected error occurred.")
        return error(status, "internal_server_error", "An unexpected error occurred.")


class Credentials:
    """The one API key."""

    def __init__(self, world: World) -> None:
        self._expected = f"Bearer {world.settings.resend_api_key}".encode()

    def refuse(self, request: Request) -> Reply | None:
        """401 without a key, 403 with a wrong one."""
        given = request.headers.get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            return None
        if not given.startswith(b"Bearer "):
            return error(401, "missing_api_key", "Missing API key in the authorization header.")
        return error(403, "invalid_api_key", "API key is invalid.")
