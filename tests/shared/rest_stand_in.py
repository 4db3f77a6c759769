"""A stand-in for PostgREST over real HTTP: it answers what a test tells it to, as PostgREST 12 would."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from shared.settings import DatabaseSettings

API_KEY = "sb_secret_0123456789abcdef"


@dataclass
class Call:
    """One call that was received; header names in lower case."""

    function: str
    arguments: Any
    headers: dict[str, str]


@dataclass
class RestStandIn:
    """Answers `answer` with `status` after `delay_seconds`, and remembers the calls."""

    url: str = ""
    status: int = 200
    answer: Any = None
    content: bytes | None = None
    delay_seconds: float = 0
    hang_up: bool = False
    calls: list[Call] = field(default_factory=list)

    def settings(self, timeout_seconds: int = 5) -> DatabaseSettings:
        return DatabaseSettings(self.url, API_KEY, timeout_seconds)

    def refuse(
        self, status: int, code: str, message: str = "", details: Any = None, hint: str | None = None
    ) -> None:
        self.status = status
        self.answer = {"code": code, "message": message, "details": details, "hint": hint}

    def body(self) -> bytes:
        if self.content is not None:
            return self.content
        return b"" if self.status == 204 else json.dumps(self.answer).encode()


@contextmanager
def rest_stand_in() -> Iterator[RestStandIn]:
    stand_in = RestStandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            stand_in.calls.append(Call(self.path.rpartition("/rpc/")[2], json.loads(body), headers))
            time.sleep(stand_in.delay_seconds)
            if stand_in.hang_up:
                self.close_connection = True
                return
            answer = stand_in.body()
            self.send_response(stand_in.status)
            self.send_header("content-type", "application/json; charset=utf-8")
            self.send_header("content-length", str(len(answer)))
            with suppress(OSError):  # the caller gave up
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_address[1]}/rest/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
