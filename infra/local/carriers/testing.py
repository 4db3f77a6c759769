"""What a test needs that talks to the carriers: a process of its own, and a receiver of their callbacks."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from infra.local.carriers.client import Carriers

ACCOUNT_SID = "AC" + "0123456789abcdef" * 2
AUTH_TOKEN = "the-carriers-test-token"  # noqa: S105  (plays a secret)
RESEND_API_KEY = "re_the_carriers_test_key"
RESEND_WEBHOOK_SECRET = "whsec_dGhlLWNhcnJpZXJzLXRlc3Qtc2VjcmV0"  # noqa: S105  (plays a secret)
START_SECONDS = 20.0
STOP_SECONDS = 10.0
_CHECKOUT = Path(__file__).parents[3]


def basic_authorization() -> str:
    """The test account's Authorization header."""
    return "Basic " + base64.b64encode(f"{ACCOUNT_SID}:{AUTH_TOKEN}".encode()).decode()


@dataclass(slots=True, frozen=True)
class Running:
    """A running process: where it is, who it is, and a client of its control doors."""

    url: str
    pid: int
    control: Carriers


class LocalTwilio(TwilioHttpClient):  # type: ignore[misc]  # the SDK has no types
    """The official HTTP client, sent to another host: the SDK has no option for that."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def request(self, method: str, url: str, *rest: Any, **named: Any) -> Any:
        """The same request, elsewhere."""
        return super().request(method, url.replace("https://api.twilio.com", self._url, 1), *rest, **named)


def twilio_client(carriers: Running, token: str = AUTH_TOKEN) -> Client:
    """The official SDK, talking to the carriers."""
    return Client(ACCOUNT_SID, token, http_client=LocalTwilio(carriers.url))


@contextmanager
def running(**settings: str) -> Iterator[Running]:
    """A carriers process on a free port with these settings on top of the test account; ended by its pid."""
    environment = {
        **os.environ,
        "TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "RESEND_API_KEY": RESEND_API_KEY,
        "RESEND_WEBHOOK_SECRET": RESEND_WEBHOOK_SECRET,
        **settings,
    }
    command = [sys.executable, "-m", "infra.local.carriers", "--port", "0"]
    process = subprocess.Popen(command, env=environment, cwd=_CHECKOUT, stdout=subprocess.PIPE, text=True)
    try:
        url = _address(process)
        control = Carriers(url)
        yield Running(url, process.pid, control)
        control.close()
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if "http://" not in line:
        raise RuntimeError(f"the carriers did not start: exit status {process.wait(START_SECONDS)}")
    return line.rsplit(" ", 1)[-1].strip()


@dataclass(slots=True)
class Callback:
    """One callback as it came; header names in lower case."""

    path: str  # with its query
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)


class Receiver:
    """An HTTP server that keeps every POST and answers what it is told to (200 and nothing unless told)."""

    def __init__(self) -> None:
        self.received: list[Callback] = []
        self.statuses: list[int] = []  # to answer first, in order
        self.answer = b""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.received.append(Callback(self.path, headers, body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def wait(self, count: int, timeout_seconds: float = 10.0) -> list[Callback]:
        """The callbacks, once there are so many. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while len(self.received) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.received)} of {count} callbacks came")
            time.sleep(0.01)
        return list(self.received)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
