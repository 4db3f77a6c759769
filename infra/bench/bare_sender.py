"""The bare limit of sending: an aiohttp loop that posts ready bodies and does nothing else.

`python -m infra.bench.bare_sender FILE IN_FLIGHT`; FILE has {url, headers, bodies}.
Prints {seconds, cpu_seconds, posted}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp


async def _work(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str], bodies: Iterator[bytes]
) -> int:
    posted = 0
    for body in bodies:
        async with session.post(url, data=body, headers=headers) as response:
            await response.read()
            posted += response.status == 201
    return posted


async def _run(order: dict[str, Any], in_flight: int) -> dict[str, float]:
    bodies = iter([body.encode() for body in order["bodies"]])
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:
        begun, cpu = time.perf_counter(), time.process_time()
        work = (_work(session, order["url"], order["headers"], bodies) for _ in range(in_flight))
        posted = sum(await asyncio.gather(*work))
        return {
            "seconds": time.perf_counter() - begun,
            "cpu_seconds": time.process_time() - cpu,
            "posted": posted,
        }


def main() -> None:
    """Run with the event loop that the dispatcher's server takes: uvloop where it is installed."""
    with suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    order = json.loads(Path(sys.argv[1]).read_text())
    print(json.dumps(asyncio.run(_run(order, int(sys.argv[2])))))


if __name__ == "__main__":
    main()
