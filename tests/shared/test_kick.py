"""A kick returns at once, carries the secret, and a failing dispatcher is only logged."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from shared import kick, log
from shared.settings import DispatchSettings
from tests.functions.environment import changed
from tests.support.waiting import until

Received = list[tuple[str, dict[str, str], Any]]


@contextmanager
def _dispatcher(seconds: float = 0.0, status: int = 200) -> Iterator[tuple[str, Received]]:
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            received.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            time.sleep(seconds)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()


def _kicker(url: str, **more: Any) -> kick.Kicker:
    return kick.Kicker(DispatchSettings.read(changed(FUNCTIONS_URL=url)), **more)


def test_a_kick_returns_at_once_and_is_written_soon() -> None:
    with _dispatcher(seconds=0.5) as (url, received):
        kicker = _kicker(url)
        with log.bound_request_id("req-1"):
            started = time.perf_counter()
            kicker.kick()
            assert time.perf_counter() - started < 0.1
        until(lambda: received, seconds=2, what="the kick")
        path, headers, body = received[0]
        assert path == "/dispatch-deliveries"
        assert headers["authorization"] == "Bearer start-0123456789abcdef0123456789abcdef"
        assert headers["x-request-id"] == "req-1"
        assert body == {"hop": 0}


def test_few_kicks_are_held_and_one_that_was_asked_for_meanwhile_follows() -> None:
    with _dispatcher(seconds=0.3) as (url, received):
        kicker = _kicker(url, most_held=2)
        for _ in range(10):
            kicker.kick()
        time.sleep(0.15)
        assert len(received) == 2
        until(lambda: len(received) == 3, seconds=2, what="the kick that was asked for meanwhile")
        time.sleep(0.5)
        assert len(received) == 3


def test_a_kick_that_nobody_could_take_is_tried_again() -> None:
    with _dispatcher(status=503) as (url, received):
        _kicker(url, pauses_seconds=(0.05, 0.05)).kick()
        until(lambda: len(received) == 3, seconds=2, what="the third try")
        time.sleep(0.2)
        assert len(received) == 3


def test_a_dispatcher_that_is_away_or_refuses_is_only_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with _dispatcher(status=401) as (url, received):
        _kicker(url).kick()
        until(lambda: received, seconds=2, what="the kick")
    _kicker(url).kick()  # nobody listens there any more
    said = ""

    def both() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "kick_refused" in said and "kick_failed" in said

    until(both, seconds=2, what="the log lines")
    assert "start-0123456789" not in said
