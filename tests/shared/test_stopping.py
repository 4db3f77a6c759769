"""SIGTERM is heard beside the server's own handler, which still runs."""

from __future__ import annotations

import os
import signal

from shared.stopping import Stopping


def test_it_hears_the_signal_and_passes_it_on() -> None:
    passed_on: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: passed_on.append(number))
    try:
        stopping = Stopping()
        stopping.listen()
        stopping.listen()
        assert not stopping.is_requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.is_requested()
        assert passed_on == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
