"""A light client: posts ready requests over kept connections, one at a time on each, and reads nothing but the status.

`python -m infra.bench.caller FILE PORT CONNECTIONS`; FILE holds each request after its length (4 bytes).
Prints {seconds, cpu_seconds, statuses}: a request without an answer for 15 s counts as `late` and
is sent again. Answers must not have a body that arrives after their head.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

LATEST_SECONDS = 15.0


def pack(requests: list[bytes]) -> bytes:
    """The file's content."""
    return b"".join(len(each).to_bytes(4, "big") + each for each in requests)


def _unpack(content: bytes) -> list[bytes]:
    requests, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        requests.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last one is there; opens itself again when it is closed."""

    def __init__(self, requests: Iterator[bytes], statuses: Counter[str], done: asyncio.Event) -> None:
        self._requests = requests
        self._statuses = statuses
        self.current: bytes | None = None
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._sent_at = 0.0
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._head = b""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._send(self.current or next(self._requests, None))

    def _send(self, request: bytes | None) -> None:
        self.current = request
        assert self._transport is not None
        if request is None:
            self.done.set()
            self._transport.close()
        else:
            self._sent_at = time.monotonic()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._statuses[self._head[9:12].decode()] += 1
            self._head, self.current = b"", None
            self._send(next(self._requests, None))

    def hang_up_if_late(self) -> None:
        """Whoever has waited too long for its answer starts again on another connection."""
        is_late = self.current is not None and time.monotonic() - self._sent_at > LATEST_SECONDS
        if is_late and self._transport is not None and not self._transport.is_closing():
            self._statuses["late"] += 1
            self._transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.is_set():
            self._statuses["reconnected"] += 1
            self.done.set()


async def _keep(requests: Iterator[bytes], port: int, statuses: Counter[str]) -> None:
    """One connection, made anew when the server closes it; a request that got no answer is sent again."""
    loop = asyncio.get_running_loop()
    protocol = _Connection(requests, statuses, asyncio.Event())
    while True:
        await loop.create_connection(lambda: protocol, "127.0.0.1", port)
        while not protocol.done.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(protocol.done.wait(), 1)
            protocol.hang_up_if_late()
        if protocol.current is None:
            return
        protocol.done = asyncio.Event()


async def _run(requests: list[bytes], port: int, connections: int) -> dict[str, object]:
    statuses: Counter[str] = Counter()
    waiting = iter(requests)
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(_keep(waiting, port, statuses) for _ in range(connections)))
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "statuses": dict(statuses),
    }


def main() -> None:
    with suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    requests = _unpack(Path(sys.argv[1]).read_bytes())
    print(json.dumps(asyncio.run(_run(requests, int(sys.argv[2]), int(sys.argv[3])))))


if __name__ == "__main__":
    main()
