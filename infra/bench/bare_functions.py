"""The bare limits of serving: functions that answer and do nothing else, for the same functions-framework."""

from __future__ import annotations

import flask


def hello(_request: flask.Request) -> str:
    """The least that a function can be."""
    return "hello"


def nothing(request: flask.Request) -> tuple[str, int]:
    """Reads the body and answers as a callback is answered."""
    request.get_data()
    return "", 204
