"""Functions that do nothing, beside which the real ones are measured: the server's own cost."""

from __future__ import annotations

from typing import Any


def hello(_request: Any) -> tuple[str, int]:
    """200 and a word."""
    return "hello", 200


def nothing(_request: Any) -> tuple[str, int]:
    """204, as a callback is answered."""
    return "", 204
