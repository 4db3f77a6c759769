"""The one HTTP client that leaves the house: it bounds every call and says what is known about its outcome.

Never written (no connection, no name, no TLS): `transient`, the message was surely not sent. Anything that
goes wrong once the request may have been written: `unknown`, the message was perhaps accepted. aiohttp
tells the two apart by the kind of its exception: only its connector raises ClientConnectorError and
ConnectionTimeoutError.

Providers' addresses come from settings and are called directly; customers' endpoints are called through
`post_guarded`, whose sockets `guard` refuses once the name is resolved. Neither follows redirects nor reads
proxies or netrc from the environment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from shared import clock, guard, log
from shared.errors import SendError, SettingsError
from shared.values import FailureClass

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver
    from yarl import URL

REQUEST_ID = "X-Request-Id"
ANSWER_LIMIT_BYTES = 64 * 1024
LIST_LIMIT_BYTES = 1024 * 1024
LONGEST_WAIT_SECONDS = 3600.0
_CONNECT_TIMEOUT_SECONDS = 5.0
_IDLE_SECONDS = 15.0  # below what load balancers keep, so that a reused connection is seldom one just closed
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]


@dataclass(slots=True)
class Answer:
    """An HTTP answer. `complete` is False when the body was cut: too long, too late or lost."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool = True

    def retry_after_seconds(self, now: clock.Clock = clock.system) -> float | None:
        """The wait asked for (RFC 9110, 10.2.3: seconds or a date), at most an hour; None: none was."""
        text = self.headers.get("Retry-After", "").strip()
        try:
            seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - now.epoch()
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


class AddressRefused(OSError):
    """A customer's endpoint resolved to an address that is not on the public internet."""


class Outbound:
    """One shared session with limits, opened on first use in the running loop. Close it.

    `timeout_seconds` bounds a whole call, to whomever, `connections` how many are open at once; keep as
    many calls in flight at most. `resolver` and `open_socket` are seams for tests.
    """

    def __init__(
        self,
        *,
        timeout_seconds: float = 10.0,
        connections: int = 100,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
        local_sink: str | None = None,
        resolver: AbstractResolver | None = None,
        open_socket: Callable[..., socket.socket] = socket.socket,
    ) -> None:
        import aiohttp  # costs 250 ms: only a function that sends pays for it
        import yarl

        self._aiohttp = aiohttp
        self._url = yarl.URL
        self._timeout_seconds = timeout_seconds
        self._connections = connections
        self._answer_limit_bytes = answer_limit_bytes
        self._local_sink = local_sink
        self._resolver = resolver
        self._open_socket = open_socket
        self._session: aiohttp.ClientSession | None = None
        self._guarded_session: aiohttp.ClientSession | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection. No call may follow."""
        self._closed = True
        for session in (self._session, self._guarded_session):
            if session is not None:
                await session.close()

    def target(self, url: str) -> URL:
        """A provider's URL, already encoded, parsed once. Raises SettingsError for http beyond loopback."""
        parsed = self._url(url, encoded=True)
        if parsed.scheme != "https" and (parsed.scheme != "http" or parsed.host not in _LOOPBACK):
            raise SettingsError("A provider's URL must use https: plain http is for loopback hosts only")
        return parsed

    async def post(self, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST to a provider. Raises SendError (transient: surely not sent; unknown: perhaps accepted)."""
        return await self._call(self._session or self._open(), "POST", url, body, headers)

    async def get(self, url: URL, headers: Mapping[str, str]) -> Answer:
        """GET a list from a provider, up to 1 MiB of it. Raises SendError as `post` does."""
        session = self._session or self._open()
        return await self._call(session, "GET", url, None, headers, LIST_LIMIT_BYTES)

    async def post_guarded(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST to a customer's endpoint on the public internet. Raises SendError, `permanent` elsewhere."""
        try:
            guard.vet_url(url, self._local_sink)
            parsed = self._url(url, encoded=True)
        except ValueError as error:
            raise SendError(FailureClass.PERMANENT, getattr(error, "code", "url_malformed")) from None
        if guard.is_local_sink(url, self._local_sink):
            return await self._call(self._session or self._open(), "POST", parsed, body, headers)
        session = self._guarded_session or self._open_guarded()
        return await self._call(session, "POST", parsed, body, headers)

    async def _call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        body: bytes | None,
        headers: Mapping[str, str],
        limit_bytes: int | None = None,
    ) -> Answer:
        request_id = log.request_id.get()
        if request_id:
            headers = {**headers, REQUEST_ID: request_id}
        try:
            response = await session.request(method, url, data=body, headers=headers, allow_redirects=False)
        except (self._aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            raise self._explain(error) from None
        return await self._read(response, limit_bytes or self._answer_limit_bytes)

    async def _read(self, response: aiohttp.ClientResponse, limit: int) -> Answer:
        length = response.content_length
        try:
            if length is not None and length <= limit:
                return Answer(response.status, response.headers, await response.read())
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > limit:
                    response.close()
                    return Answer(response.status, response.headers, bytes(body[:limit]), complete=False)
            return Answer(response.status, response.headers, bytes(body))
        except (self._aiohttp.ClientError, OSError):  # TimeoutError is an OSError
            response.close()
            return Answer(response.status, response.headers, b"", complete=False)
        except BaseException:
            response.close()
            raise

    def _explain(self, error: Exception) -> SendError:
        aiohttp = self._aiohttp
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused):
            return SendError(FailureClass.PERMANENT, "address_refused")
        for kind, failure_class, code in (  # the first that fits
            (aiohttp.ClientConnectorDNSError, FailureClass.TRANSIENT, "name_unresolved"),
            (aiohttp.ClientSSLError, FailureClass.TRANSIENT, "tls_failed"),
            (aiohttp.ClientConnectorError, FailureClass.TRANSIENT, "connect_failed"),
            (aiohttp.ConnectionTimeoutError, FailureClass.TRANSIENT, "connect_timeout"),
            (aiohttp.InvalidURL, FailureClass.PERMANENT, "url_malformed"),
            (TimeoutError, FailureClass.UNKNOWN, "answer_timeout"),
            (aiohttp.ClientResponseError, FailureClass.UNKNOWN, "answer_broken"),
        ):
            if isinstance(error, kind):
                return SendError(failure_class, code)
        return SendError(FailureClass.UNKNOWN, "connection_lost")

    def _open(self) -> aiohttp.ClientSession:
        connector = self._aiohttp.TCPConnector(
            limit=self._connections, keepalive_timeout=_IDLE_SECONDS, resolver=self._resolver
        )
        self._session = self._new_session(connector)
        return self._session

    def _open_guarded(self) -> aiohttp.ClientSession:
        connector = self._aiohttp.TCPConnector(
            limit=self._connections,
            limit_per_host=10,  # one slow endpoint must not hold all connections
            keepalive_timeout=_IDLE_SECONDS,
            resolver=self._resolver,
            socket_factory=self._guarded_socket,
        )
        self._guarded_session = self._new_session(connector)
        return self._guarded_session

    def _new_session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("This Outbound is closed")
        # connect < total, or running out of time while connecting would look like having written
        connect_seconds = min(_CONNECT_TIMEOUT_SECONDS, self._timeout_seconds / 2)
        timeout = self._aiohttp.ClientTimeout(
            total=self._timeout_seconds,
            connect=connect_seconds,
            ceil_threshold=self._timeout_seconds + 1,  # aiohttp rounds longer ones up: a lease counts on it
        )
        return self._aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=self._aiohttp.DummyCookieJar(),
            headers={"User-Agent": "CredoAlert/1", "Accept-Encoding": "identity"},
            auto_decompress=False,  # an answer that inflates would pass the limit
            trust_env=False,
        )

    def _guarded_socket(self, info: _AddressInfo) -> socket.socket:
        family, kind, protocol, _, destination = info
        if destination[1] not in guard.PORTS or not guard.is_public(str(destination[0])):
            raise AddressRefused("the endpoint's address is not on the public internet")
        return self._open_socket(family=family, type=kind, proto=protocol)
