"""The poster: one POST over HTTP and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

TIMEOUT_SECONDS = 15.0  # Twilio's and Svix's
KEEPALIVE_SECONDS = 5.0


@dataclass(slots=True, frozen=True)
class Outcome:
    """What came of one try. `reason`: empty for 2xx, else 3xx, 4xx, 5xx, ct (no connection), rt (timeout)."""

    status: int
    body: bytes
    reason: str


class Poster:
    """One session with at most `in_flight` connections. Redirects are not followed, no proxy is asked."""

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._in_flight, keepalive_timeout=KEEPALIVE_SECONDS)
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self._session

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Post to a URL exactly as it is written (it may be signed)."""
        target = URL(url, encoded=True)
        try:
            async with self._opened().post(
                target, data=body, headers=headers, allow_redirects=False
            ) as response:
                content = await response.read()
        except TimeoutError:
            return Outcome(0, b"", "rt")
        except (aiohttp.ClientError, OSError):
            return Outcome(0, b"", "ct")
        accepted = 200 <= response.status < 300
        return Outcome(response.status, content, "" if accepted else f"{response.status // 100}xx")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
