"""What the HTTP client knows about the outcome of a call, proved with a raw socket at the other end."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from shared.clock import FrozenClock
from shared.errors import SendError, SettingsError
from shared.log import bound_request_id
from shared.outbound import Answer, Outbound
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.raw_server import Behaviour, answer, answering, serve

TRANSIENT, UNKNOWN = FailureClass.TRANSIENT, FailureClass.UNKNOWN
HEADERS = {"Content-Type": "text/plain"}


async def call(url: str, *, timeout_seconds: float = 2.0, resolver: AbstractResolver | None = None) -> Answer:
    async with Outbound(timeout_seconds=timeout_seconds, resolver=resolver) as outbound:
        return await outbound.post(outbound.target(url), b"hello", HEADERS)


def failure_of(behaviour: Behaviour, timeout_seconds: float = 2.0) -> tuple[FailureClass, str, int]:
    """The failure of one call to a server that behaves so, and the requests that it read whole."""

    async def run() -> tuple[FailureClass, str, int]:
        async with serve(behaviour) as server:
            with pytest.raises(SendError) as raised:
                await call(server.url, timeout_seconds=timeout_seconds)
            return raised.value.failure_class, raised.value.code, len(server.requests)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (raw_server.close_unread, "connection_lost"),  # it may have read what we wrote: nobody can tell
        (raw_server.close_after_reading, "connection_lost"),
        (raw_server.reset_after_reading, "connection_lost"),
        (raw_server.half_a_head, "connection_lost"),
        (raw_server.garbage, "answer_broken"),
        (raw_server.endless_head, "answer_broken"),
    ],
)
def test_a_request_that_may_have_been_written_is_unknown(behaviour: Behaviour, code: str) -> None:
    failure_class, found, _ = failure_of(behaviour)
    assert (failure_class, found) == (UNKNOWN, code)


def test_a_hanging_server_is_given_up_in_time_and_unknown() -> None:
    began = time.monotonic()
    assert failure_of(raw_server.hang, timeout_seconds=0.3) == (UNKNOWN, "answer_timeout", 1)
    assert time.monotonic() - began < 2


def test_a_post_is_never_repeated_by_the_client_itself() -> None:
    async def one_answer_a_connection(
        raw: raw_server.RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await raw.read(reader)
        writer.write(answer(200, b"ok"))
        await raw.read(reader)  # the second request is read, then the connection is cut
        writer.transport.abort()

    async def run() -> None:
        async with serve(one_answer_a_connection) as server, Outbound(timeout_seconds=2) as outbound:
            target = outbound.target(server.url)
            await outbound.post(target, b"first", HEADERS)
            with pytest.raises(SendError) as raised:
                await outbound.post(target, b"second", HEADERS)
            assert raised.value.failure_class is UNKNOWN
            assert [request.body for request in server.requests] == [b"first", b"second"]
            assert server.connections == 1

    asyncio.run(run())


def refused_url() -> str:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


def test_a_refused_connection_is_transient() -> None:
    with pytest.raises(SendError) as raised:
        asyncio.run(call(refused_url()))
    assert (raised.value.failure_class, raised.value.code) == (TRANSIENT, "connect_failed")


class BrokenResolver(AbstractResolver):
    """Finds nothing, or takes for ever."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        await asyncio.sleep(self._seconds)
        raise OSError("no such name")

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("seconds", "code"), [(0.0, "name_unresolved"), (30.0, "connect_timeout")])
def test_a_name_that_does_not_resolve_is_transient(seconds: float, code: str) -> None:
    with pytest.raises(SendError) as raised:
        asyncio.run(call("https://provider.example", timeout_seconds=0.4, resolver=BrokenResolver(seconds)))
    assert (raised.value.failure_class, raised.value.code) == (TRANSIENT, code)


@pytest.mark.parametrize(
    "behaviour",
    [raw_server.cut_body(201), raw_server.stalled_body(201), raw_server.endless_body(201)],
    ids=["cut", "stalled", "endless"],
)
def test_an_answer_that_breaks_off_keeps_its_status_and_says_so(behaviour: Behaviour) -> None:
    async def run() -> Answer:
        async with serve(behaviour) as server:
            return await call(server.url, timeout_seconds=0.5)

    found = asyncio.run(run())
    assert (found.status, found.complete) == (201, False)
    assert len(found.body) <= 64 * 1024


def test_an_answer_is_read_up_to_its_limit_whether_it_says_its_length_or_not() -> None:
    async def run() -> None:
        sizes = (64 * 1024, 64 * 1024 + 1)
        async with serve(answering(*(answer(200, b"x" * size) for size in sizes))) as server:
            assert (await call(server.url)).complete
            assert not (await call(server.url)).complete

    asyncio.run(run())


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async def run() -> None:
        async with serve(answering(answer(200, b"trap"))) as trap:
            hop = answer(307, b"", Location=f"{trap.url}/private")
            async with serve(answering(hop)) as server:
                assert (await call(server.url)).status == 307
            assert trap.connections == 0

    asyncio.run(run())


def test_the_environment_cannot_name_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serve(answering(answer(200, b"proxy"))) as proxy, serve(answering(answer(204))) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            assert (await call(server.url)).status == 204
            assert proxy.connections == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "url",
    [
        "http://api.twilio.com/x",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//api.twilio.com/",
    ],
)
def test_plain_http_is_for_loopback_only(url: str) -> None:
    with pytest.raises(SettingsError):
        Outbound().target(url)


def test_the_request_id_of_the_moment_travels_along() -> None:
    async def run() -> None:
        async with serve(answering(answer(204))) as server, Outbound() as outbound:
            target = outbound.target(server.url)
            await outbound.post(target, b"", HEADERS)
            with bound_request_id("request-7"):
                await outbound.post(target, b"", HEADERS)
            assert [request.headers.get("x-request-id") for request in server.requests] == [None, "request-7"]
            assert server.connections == 1

    asyncio.run(run())


def test_a_cookie_is_not_kept() -> None:
    async def run() -> None:
        async with serve(answering(answer(204, Set_Cookie="a=1"))) as server, Outbound() as outbound:
            for _ in range(2):
                await outbound.post(outbound.target(server.url), b"", HEADERS)
            assert "cookie" not in server.requests[1].headers

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("999999999999999999999", 3600.0),
        ("Mon, 23 Nov 2026 12:01:00 GMT", 60.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_an_hour(text: str, seconds: float | None) -> None:
    now = FrozenClock(datetime(2026, 11, 23, 12, tzinfo=UTC))
    assert Answer(429, {"Retry-After": text}, b"").retry_after_seconds(now) == seconds


def test_nothing_may_follow_close() -> None:
    async def run() -> None:
        outbound = Outbound()
        await outbound.close()
        with pytest.raises(RuntimeError, match="closed"):
            await outbound.post(outbound.target("http://127.0.0.1:1"), b"", HEADERS)

    asyncio.run(run())


def test_aiohttp_is_imported_by_constructing_not_by_importing() -> None:
    script = (
        "import sys, shared.outbound, shared.signatures, shared.channels.sms, shared.channels.voice\n"
        "import shared.channels.email, shared.channels.webhook\n"
        "found = {'aiohttp', 'yarl', 'twilio', 'resend', 'standardwebhooks', 'svix'} & set(sys.modules)\n"
        "sys.exit(' '.join(found) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"imported too early: {done.stderr}"
