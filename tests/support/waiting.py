"""Waiting for something that comes by itself, with a limit and a word about what did not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(probe: Callable[[], T | None], *, seconds: float, what: str) -> T:
    """The first truthy answer of `probe`, asked every 50 ms. Raises AssertionError after `seconds`."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s")
