"""A server on loopback that does to a connection what it is told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

Behaviour = Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True, frozen=True)
class Received:
    """One request that was read whole; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True)

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)


@dataclass(slots=True)
class RawServer:
    """`url` is its origin; `connections` counts accepted sockets."""

    url: str = ""
    connections: int = 0
    requests: list[Received] = field(default_factory=list)

    async def read(self, reader: asyncio.StreamReader) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(method, target, headers, body)
        self.requests.append(received)
        return received


@asynccontextmanager
async def serve(behaviour: Behaviour, host: str = "127.0.0.1") -> AsyncIterator[RawServer]:
    """A server with one behaviour for every connection."""
    raw = RawServer()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behaviour(raw, reader, writer)
        writer.close()

    server = await asyncio.start_server(accept, host, 0)
    port = server.sockets[0].getsockname()[1]
    raw.url = f"http://{host}:{port}"
    try:
        yield raw
    finally:
        server.close()


def answering(*answers: bytes) -> Behaviour:
    """Read requests and give the answers in turn, the last one for ever."""
    state = {"next": 0}

    async def behave(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await raw.read(reader)
            answer = answers[min(state["next"], len(answers) - 1)]
            state["next"] += 1
            writer.write(answer)
            await writer.drain()

    return behave


def answer(status: int, body: bytes | str = b"", **headers: str) -> bytes:
    """A whole HTTP answer; header names with underscores for dashes."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, f"Content-Length: {len(content)}"])
    return head.encode() + b"\r\n\r\n" + content


async def close_unread(_: RawServer, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, then cut the connection without reading."""
    writer.transport.abort()


async def close_after_reading(raw: RawServer, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read the request, then say nothing and close."""
    await raw.read(reader)


async def reset_after_reading(
    raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Read the request, then reset."""
    await raw.read(reader)
    writer.transport.abort()


async def hang(raw: RawServer, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read the request and never answer."""
    await raw.read(reader)
    await reader.read()  # until the client gives up


async def garbage(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with something that is not HTTP."""
    await raw.read(reader)
    writer.write(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n")
    await writer.drain()


async def half_a_head(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer and close within its head."""
    await raw.read(reader)
    writer.write(b"HTTP/1.1 201 Created\r\nContent-Le")
    await writer.drain()


def cut_body(status: int) -> Behaviour:
    """Promise more body than is sent, then close."""

    async def behave(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await raw.read(reader)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 500\r\n\r\n".encode() + b'{"sid":"SM')
        await writer.drain()

    return behave


def stalled_body(status: int) -> Behaviour:
    """Send half of the body and then nothing more."""

    async def behave(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await raw.read(reader)
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 500\r\n\r\n".encode() + b'{"sid":"SM')
        await writer.drain()
        await reader.read()

    return behave


def endless_body(status: int) -> Behaviour:
    """A chunked body that does not end."""

    async def behave(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await raw.read(reader)
        writer.write(f"HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while True:
            writer.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    return behave


async def endless_head(raw: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers that do not end."""
    await raw.read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)
