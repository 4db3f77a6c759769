"""A light HTTP client: sends prepared requests over many kept connections, reads the status of each answer.

Run as `python -m infra.bench.caller FILE PORT CONNECTIONS`: FILE holds the requests, each a line with its length and then
its bytes. Prints {seconds, answers: {status: count}, slowest_seconds} as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

LONGEST_SECONDS = 300


def pack(requests: Iterable[bytes]) -> bytes:
    """The file that `main` reads."""
    return b"".join(b"%d\n%b" % (len(each), each) for each in requests)


def unpack(content: bytes) -> Iterator[bytes]:
    """The requests of such a file."""
    at = 0
    while at < len(content):
        end = content.index(b"\n", at)
        length = int(content[at:end])
        yield content[end + 1 : end + 1 + length]
        at = end + 1 + length


class Connection(asyncio.Protocol):
    """One connection: the next request goes out when the answer to the last one is whole (its body is empty)."""

    def __init__(self, waiting: Iterator[bytes], answers: Counter[int], done: asyncio.Future[None]) -> None:
        self._waiting = waiting
        self._answers = answers
        self._done = done
        self._received = b""
        self._sent_at = 0.0
        self.slowest_seconds = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"\r\n\r\n"):
            self._answers[int(self._received[9:12])] += 1
            self._received = b""
            self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - self._sent_at)
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed a connection"))

    def _next(self) -> None:
        request = next(self._waiting, None)
        if request is not None:
            self._sent_at = time.perf_counter()
            self._transport.write(request)
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def run(requests: list[bytes], port: int, connections: int) -> dict[str, object]:
    """Send all of them, so many at a time."""
    loop = asyncio.get_running_loop()
    waiting, answers = iter(requests), Counter[int]()
    every: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    began = time.perf_counter()
    opened = await asyncio.gather(
        *(
            loop.create_connection(lambda done=done: Connection(waiting, answers, done), "127.0.0.1", port)  # type: ignore[misc]
            for done in every
        )
    )
    await asyncio.wait_for(asyncio.gather(*every), LONGEST_SECONDS)
    slowest_seconds = max(protocol.slowest_seconds for _, protocol in opened)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "answers": answers, "slowest_seconds": slowest_seconds}


def main() -> None:
    requests = list(unpack(Path(sys.argv[1]).read_bytes()))
    print(json.dumps(asyncio.run(run(requests, int(sys.argv[2]), int(sys.argv[3])))))


if __name__ == "__main__":
    main()
