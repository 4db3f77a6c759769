"""One HTTP exchange as values: the request that came and the reply that goes (or is withheld)."""

from __future__ import annotations

import json
from asyncio import Future
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from urllib.parse import unquote_plus


class Ending(Enum):
    """What becomes of a reply."""

    SEND = "send"
    DROP = "drop"  # the connection is cut instead
    HANG = "hang"  # nothing comes, ever


class Request:
    """A request that has arrived whole. `begun_at` (epoch seconds) is when its first byte was seen."""

    __slots__ = ("begun_at", "body", "headers", "method", "path", "query_text")

    def __init__(
        self, method: str, target: str, headers: dict[bytes, bytes], body: bytes, begun_at: float
    ) -> None:
        self.method = method
        self.path, _, self.query_text = target.partition("?")
        self.headers = headers  # names in lower case
        self.body = body
        self.begun_at = begun_at

    def header(self, name: bytes) -> str | None:
        """A header's text, or None; `name` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def query(self) -> dict[str, list[str]]:
        """The query's values by name, in order."""
        return parse_form(self.query_text)

    def form(self) -> dict[str, list[str]]:
        """The values of a URL-encoded body by name, in order."""
        return parse_form(self.body.decode("utf-8", "replace"))


class Reply:
    """An answer and its fate. `rows`: the journal sequences that it tells of (first, one past the last)."""

    __slots__ = ("body", "delay_seconds", "ending", "headers", "rows", "status")

    def __init__(
        self, status: int, body: bytes, headers: bytes = b"", rows: tuple[int, int] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers  # whole lines, each ended by CR LF
        self.rows = rows
        self.delay_seconds = 0.0
        self.ending = Ending.SEND

    def encoded(self) -> bytes:
        """The bytes for the wire."""
        return b"%s%sContent-Length: %d\r\n\r\n%s" % (
            _STATUS_LINES[self.status],
            self.headers,
            len(self.body),
            self.body,
        )


Answer = Reply | Future[Reply]
Handler = Callable[[Request], Answer]

JSON_TYPE = b"Content-Type: application/json; charset=utf-8\r\n"
_PROBLEM_TYPE = b"Content-Type: application/problem+json\r\n"
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def encode(document: object) -> bytes:
    """A document as minified JSON."""
    return _compact(document).encode("utf-8", "backslashreplace")


def reply_json(status: int, document: object, headers: bytes = b"") -> Reply:
    """A JSON answer."""
    return Reply(status, encode(document), JSON_TYPE + headers)


def problem(status: int, code: str, detail: str) -> Reply:
    """A problem document (RFC 9457) of the control doors."""
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return Reply(status, encode({**document, "code": code, "detail": detail}), _PROBLEM_TYPE)


def retry_after(seconds: float) -> bytes:
    """The Retry-After line of a 429 (whole seconds, at least 1); none for 0."""
    return b"Retry-After: %d\r\n" % max(1, round(seconds)) if seconds > 0 else b""


def parse_form(text: str) -> dict[str, list[str]]:
    """The values of a URL-encoded form or query by name; empty ones too."""
    fields: dict[str, list[str]] = {}
    for pair in text.split("&"):
        name, _, value = pair.partition("=")
        if not name:
            continue
        if "%" in value or "+" in value:
            value = unquote_plus(value, errors="replace")
        if "%" in name or "+" in name:
            name = unquote_plus(name, errors="replace")
        fields.setdefault(name, []).append(value)
    return fields
