"""A bare aiohttp loop: posts given bodies with so many in flight, reads the answers and does nothing else.

Run as `python -m infra.bench.poster FILE` with {url, headers, bodies, in_flight} as JSON; prints {seconds, cpu_seconds}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp


async def _post_all(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes]) -> None:
    for body in bodies:
        async with session.post(url, data=body) as response:
            answer = await response.read()
            if response.status != 201:
                raise SystemExit(f"the carriers answered {response.status}: {answer[:200]!r}")


async def _run(url: str, headers: Mapping[str, str], bodies: list[bytes], in_flight: int) -> dict[str, Any]:
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        waiting = iter(bodies)
        began, cpu_began = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_post_all(session, url, waiting) for _ in range(in_flight)))
        return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text())
    bodies = [each.encode() for each in given["bodies"]]
    run = _run(given["url"], given["headers"], bodies, given["in_flight"])
    try:
        import uvloop  # as the dispatcher's server does where it is installed
    except ImportError:
        print(json.dumps(asyncio.run(run)))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(run)))


if __name__ == "__main__":
    main()
