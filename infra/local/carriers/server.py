"""The wire: HTTP/1.1 with keep-alive and pipelining straight on asyncio, parsed by httptools."""

from __future__ import annotations

import asyncio
import time
import traceback
from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import cast

import httptools

from infra.local.carriers.exchange import Answer, Ending, Handler, Reply, Request, problem

MAXIMUM_BODY_BYTES = 16 * 1024 * 1024
MAXIMUM_WAITING_REPLIES = 1000  # requests pipelined on one connection and not yet answered
HANG_SECONDS = 120.0  # a hanging connection is cut after this, so that a forgotten client leaks nothing

Unheard = Callable[[tuple[int, int]], None]


class _Slot:
    """One reply's place in a connection's order."""

    __slots__ = ("close", "ready", "reply")

    def __init__(self, close: bool) -> None:
        self.close = close
        self.ready = False
        self.reply: Reply | None = None


class Connection(asyncio.Protocol):
    """One client's connection. Replies leave in the order of their requests, as HTTP asks."""

    def __init__(self, handle: Handler, unheard: Unheard, connections: set[Connection]) -> None:
        self._handle = handle
        self._unheard = unheard
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._slots: deque[_Slot] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self._closing = False
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        self._begun_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._closing = True
        while self._slots:
            self._forget(self._slots.popleft())

    def close(self) -> None:
        """Cut the connection at once."""
        self._closing = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            self._refuse(400, "malformed_http", "This is not an HTTP/1.1 request.")
        self._flush()

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    # What the parser tells, in this order.

    def on_message_begin(self) -> None:
        self._begun_at = time.time()
        self._target = b""
        self._headers = {}
        self._chunks = []
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if b"expect" in self._headers:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAXIMUM_BODY_BYTES:
            self._refuse(413, "body_too_large", f"A body may have {MAXIMUM_BODY_BYTES} bytes at most.")
        elif not self._closing:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._closing:
            return
        slot = _Slot(close=not self._parser.should_keep_alive())
        self._slots.append(slot)
        if len(self._slots) > MAXIMUM_WAITING_REPLIES:
            self.close()
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        method = self._parser.get_method().decode("ascii")
        target = self._target.decode("latin-1")
        request = Request(method, target, self._headers, body, self._begun_at)
        try:
            self._take(slot, self._handle(request))
        except Exception:  # else the parser would call it the client's mistake
            traceback.print_exc()
            self._take(slot, problem(500, "carrier_broken", "The stand-in itself failed; see its log."))

    # Replies.

    def _take(self, slot: _Slot, answer: Answer) -> None:
        if isinstance(answer, Future):
            answer.add_done_callback(lambda done: self._complete(slot, done.result()))
            return
        slot.reply = answer
        if answer.ending is Ending.HANG:
            self._loop.call_later(HANG_SECONDS, self._complete, slot, answer)
        elif answer.delay_seconds > 0:
            self._loop.call_later(answer.delay_seconds, self._complete, slot, answer)
        else:
            slot.ready = True

    def _complete(self, slot: _Slot, reply: Reply) -> None:
        slot.reply = reply
        slot.ready = True
        self._flush()

    def _flush(self) -> None:
        output: list[bytes] = []
        last = False
        while self._slots and not last and not self._transport.is_closing():
            reply = self._slots[0].reply
            if reply is None or not self._slots[0].ready:
                break
            last = self._slots.popleft().close
            if reply.ending is not Ending.SEND:
                self._write(output)
                self.close()
                return
            output.append(reply.encoded())
        self._write(output)
        if last:
            self._closing = True
            self._transport.close()

    def _write(self, output: list[bytes]) -> None:
        if output:
            self._transport.write(output[0] if len(output) == 1 else b"".join(output))

    def _refuse(self, status: int, code: str, detail: str) -> None:
        if not self._closing:
            slot = _Slot(close=True)
            slot.reply, slot.ready = problem(status, code, detail), True
            self._slots.append(slot)
            self._closing = True

    def _forget(self, slot: _Slot) -> None:
        reply = slot.reply
        if reply is not None and reply.rows is not None:
            self._unheard(reply.rows)


class Server:
    """The listening socket and its connections."""

    def __init__(self, handle: Handler, unheard: Unheard) -> None:
        self._handle = handle
        self._unheard = unheard
        self._connections: set[Connection] = set()
        self._server: asyncio.AbstractServer | None = None

    async def start(self, port: int) -> int:
        """Listen on the loopback interface; returns the port (a free one when 0 was asked)."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self._handle, self._unheard, self._connections),
            host="127.0.0.1",
            port=port,
            backlog=1024,
        )
        self._server = server
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening and cut what is open."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        await asyncio.sleep(0)
