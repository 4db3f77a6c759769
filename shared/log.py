"""Log lines: one JSON object a line on stderr, from allowlisted keys only, never personal data.

A key that is not in `ALLOWED` is dropped and only counted, because a log outlives an erasure (design:
trust.md, case 17). Exceptions appear as their class, the database constraint they name and the places in our
code: their words may hold an address (PostgreSQL's 23505 prints the row's key).
"""

from __future__ import annotations

import json
import sys
import traceback
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from pathlib import PurePath
from types import TracebackType
from typing import Any, TextIO
from uuid import UUID

from shared import clock

_KEYS = (
    "accepted alert_id applied attempt backlog batch cancelled channel claimed code count database_code "
    "delivery_id duration_ms expired failed failure_class fenced found function hop in_flight key_id "
    "kind lease limit method operation organisation_id outcome port provider provider_status reason "
    "recorded refused repeated requests retry_after_seconds route rows sent size_bytes skipped state "
    "status stored tally unknown wait_seconds waiting worker workers worker_count"
)
ALLOWED = frozenset(_KEYS.split())
LONGEST_VALUE = 120
_encode = json.JSONEncoder(separators=(",", ":")).encode
DEEPEST_FRAMES = 4

request_id: ContextVar[str] = ContextVar("request_id", default="")


class bound_request_id(AbstractContextManager[None]):  # noqa: N801 (used as a block's word)
    """Every line and every call outwards inside the block carries this request id."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._token: Token[str] | None = None

    def __enter__(self) -> None:
        self._token = request_id.set(self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            request_id.reset(self._token)


class Log:
    """Writes lines to one stream. `info`, `warning` and `error` differ in the severity alone."""

    def __init__(self, stream: TextIO | None = None, *, now: clock.Clock = clock.system) -> None:
        self._stream = stream
        self._clock = now

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, None, fields)

    def warning(self, event: str, error: BaseException | None = None, **fields: Any) -> None:
        self._write("warning", event, error, fields)

    def error(self, event: str, error: BaseException | None = None, **fields: Any) -> None:
        self._write("error", event, error, fields)

    def _write(self, severity: str, event: str, error: BaseException | None, fields: dict[str, Any]) -> None:
        line: dict[str, Any] = {"time": self._clock.now().isoformat(timespec="milliseconds")}
        line |= {"severity": severity, "event": event}
        current = request_id.get()
        if current:
            line["request_id"] = current
        kept = {key: _plain(value) for key, value in fields.items() if key in ALLOWED}
        line |= kept
        if len(kept) < len(fields):
            line["dropped_keys"] = len(fields) - len(kept)
        if error is not None:
            line |= _described(error)
        stream = self._stream or sys.stderr  # which flushes at every line's end
        stream.write(_encode(line) + "\n")


def _plain(value: Any) -> Any:
    """Scalars as they are, short texts, and mappings of counts; anything else only by its type's name."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str | UUID):
        return str(value)[:LONGEST_VALUE]
    if isinstance(value, dict) and all(isinstance(item, int | float) for item in value.values()):
        return {str(key)[:40]: item for key, item in value.items()}
    return type(value).__name__


def _described(error: BaseException) -> dict[str, Any]:
    constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
    places = [
        (PurePath(frame.filename).parts, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    ours = [place for place in places if {"shared", "functions"} & set(place[0])] or places
    described: dict[str, Any] = {
        "error": type(error).__name__,
        "at": [f"{'/'.join(parts[-2:])}:{line}" for parts, line in ours[-DEEPEST_FRAMES:]],
    }
    if isinstance(constraint, str):
        described["constraint"] = constraint[:LONGEST_VALUE]
    if error.__cause__ is not None:
        described["cause"] = type(error.__cause__).__name__
    return described


log = Log()
