"""Hears that the platform wants this process to end, beside the server that ends it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopping:
    """`is_requested` turns true at SIGTERM, so that work without an end can end itself and give back what it holds.

    The server (uvicorn) waits for its open requests; a dispatcher is one, and would run on until its budget is spent.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._listens = False

    def is_requested(self) -> bool:
        """Whether SIGTERM came."""
        return self._requested.is_set()

    def listen(self) -> None:
        """Put ourselves before the server's own handler; call from a request, when that has been set."""
        if self._listens or threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGTERM)

        def heard(number: int, frame: FrameType | None) -> None:
            self._requested.set()
            if callable(before):
                before(number, frame)

        signal.signal(signal.SIGTERM, heard)
        self._listens = True
