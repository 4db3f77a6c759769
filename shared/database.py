"""The one door to the database: PostgREST calls by name, each with the identity of one caller.

Two forms of the same interface, `rpc(name, **arguments) -> value`:

- `Database` for a request thread. Behind it either Supabase's own `postgrest` client (`PostgrestTransport`)
  or a lean keep-alive pool (`KeepAliveTransport`) where a cold start or a callback's cost matters.
- `AsyncDatabase` for the dispatcher, over aiohttp.

Errors are mapped here and nowhere else: only a refusal that SQL raised on purpose (SQLSTATE PT4xx, see
house.md) becomes 4xx with its words; whatever else the database says stays here, because its words name keys
and values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from shared import log
from shared.errors import AppError, Refusal, Unavailable
from shared.settings import DatabaseSettings

if TYPE_CHECKING:
    from aiohttp import ClientSession

CONNECT_TIMEOUT_SECONDS = 3
KEPT_CONNECTIONS = 64

_UNAVAILABLE_CODES = frozenset(
    {"57014", "57P01", "57P02", "57P03", "53300", "53400", "55P03", "40001", "40P01"}
)
_TOKEN_CODES = frozenset({"PGRST300", "PGRST301", "PGRST302", "PGRST303"})


class Transport(Protocol):
    """Carries one call to PostgREST."""

    def call(self, name: str, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        """The function's one JSON value. Raises AppError (see `failure`)."""


class Database:
    """One caller's door. Made for one request and never shared: it carries that caller's token."""

    def __init__(self, transport: Transport, settings: DatabaseSettings, token: str | None = None) -> None:
        self._transport = transport
        self._api_key = settings.api_key
        self._token = token

    def rpc(self, name: str, **arguments: Any) -> Any:
        """Call the SQL function `name`; its one JSON value, None for void.

        Raises Refusal (4xx, nothing was done), Unavailable (503, safe to repeat: operations are idempotent)
        or AppError (500, ours to mend).
        """
        return self._transport.call(name, arguments, _identity(self._api_key, self._token))


def _identity(api_key: str, token: str | None) -> dict[str, str]:
    headers = {"apikey": api_key, "Authorization": f"Bearer {token or api_key}"}
    request_id = log.request_id.get()
    if request_id:
        headers["X-Request-Id"] = request_id
    return headers


def failure(status: int, body: Mapping[str, Any]) -> AppError:
    """What PostgREST's error means to our caller. `body`: {code, message, details, hint}, or empty."""
    code = str(body.get("code") or "")
    if code.startswith("PT4") and len(code) == 5 and code[2:].isdigit():
        return _refusal(int(code[2:]), body)
    if code in _TOKEN_CODES or status == 401:
        return unauthenticated()
    if code == "42501" or status == 403:
        return Refusal("forbidden", "Your role in this organisation does not allow this.", status=403)
    if code in _UNAVAILABLE_CODES or code[:2] == "08" or code[:6] == "PGRST0" or status in (502, 503, 504):
        return unavailable(code)
    log.log.error("database_error", status=status, database_code=code)
    return AppError("internal_error", "Something failed on our side. It was recorded.")


def _refusal(status: int, body: Mapping[str, Any]) -> Refusal:
    try:
        members = json.loads(body.get("details") or "{}")
    except ValueError:
        members = {}
    detail = str(body.get("hint") or "This was refused.")
    return Refusal(
        str(body.get("message")),
        detail,
        status=status,
        members=members if isinstance(members, dict) else {},
        headers={"WWW-Authenticate": "Bearer"} if status == 401 else None,
    )


def unauthenticated(reason: str = "The access token is missing, expired or not valid here.") -> Refusal:
    """401 with the challenge that RFC 6750 asks for."""
    return Refusal("unauthenticated", reason, status=401, headers={"WWW-Authenticate": "Bearer"})


def unavailable(code: str, error: BaseException | None = None) -> Unavailable:
    log.log.warning("database_unavailable", error, database_code=code)
    return Unavailable(
        "database_unavailable",
        "The database did not answer in time. Repeat the same request.",
        headers={"Retry-After": "2"},
    )


def _decoded(status: int, content: bytes, loads: Any = json.loads) -> Any:
    """The value of a 2xx reply; raises the mapped error for any other."""
    if 200 <= status < 300 and not content:
        return None
    try:
        value = loads(content)
    except ValueError:
        raise failure(status if status >= 300 else 502, {}) from None
    if 200 <= status < 300:
        return value
    raise failure(status, value if isinstance(value, dict) else {})


class KeepAliveTransport:
    """PostgREST over a pool of kept connections: the least import and the least work a call."""

    def __init__(self, settings: DatabaseSettings, *, timeout_seconds: float | None = None) -> None:
        self._base = settings.rest_url
        self._timeout_seconds = timeout_seconds or settings.timeout_seconds
        self._pool: Any = None

    def call(self, name: str, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        import urllib3

        if self._pool is None:  # after the server forked, never at import
            timeout = urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=self._timeout_seconds)
            self._pool = urllib3.PoolManager(maxsize=KEPT_CONNECTIONS, timeout=timeout, retries=False)
        try:
            response = self._pool.request(
                "POST",
                f"{self._base}/rpc/{name}",
                body=json.dumps(arguments, separators=(",", ":")).encode(),
                headers={"Content-Type": "application/json", "Accept": "application/json", **headers},
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise unavailable("", error) from error
        return _decoded(response.status, response.data)


class PostgrestTransport:
    """PostgREST by Supabase's own client: one shared connection pool, one client (and its headers) a call."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._pool: Any = None

    def call(self, name: str, arguments: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
        import httpx
        from postgrest import APIError, SyncPostgrestClient

        client = SyncPostgrestClient(
            self._settings.rest_url, headers=dict(headers), http_client=self._session(), retry_enabled=False
        )
        try:
            value = client.rpc(name, dict(arguments)).execute().data
        except APIError as error:
            raise failure(_status(error.code), error.json()) from None
        except httpx.HTTPError as error:
            raise unavailable("", error) from error
        return None if value == [] else value  # how this client shows a reply without a body

    def _session(self) -> Any:
        if self._pool is None:
            import httpx

            timeout = httpx.Timeout(self._settings.timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS)
            limits = httpx.Limits(max_connections=KEPT_CONNECTIONS)
            secure = self._settings.rest_url.startswith("https")  # else no certificates are loaded: 37 ms
            self._pool = httpx.Client(timeout=timeout, limits=limits, trust_env=False, verify=secure)
        return self._pool


def _status(code: str | None) -> int:
    """The HTTP status that `postgrest` hides: in "PT503", or in place of the code where the reply was not
    JSON.
    """
    digits = (code or "").removeprefix("PT")
    return int(digits) if len(digits) == 3 and digits.isdigit() else 500


class AsyncDatabase:
    """The dispatcher's door: our own identity, over aiohttp. One an event loop, as an async context manager.

    `session` may be shared with others; without one it opens its own on the first call and closes that in
    `close`.
    """

    def __init__(self, settings: DatabaseSettings, session: ClientSession | None = None) -> None:
        self._settings = settings
        self._session = session
        self._own: ClientSession | None = None

    async def rpc(self, name: str, **arguments: Any) -> Any:
        """As `Database.rpc`. Unavailable means that the call may or may not have been carried out."""
        import aiohttp
        import orjson

        headers = _identity(self._settings.api_key, None) | {"Content-Type": "application/json"}
        try:
            async with self._open().post(
                f"{self._settings.rest_url}/rpc/{name}",
                data=orjson.dumps(arguments),
                headers=headers,
                timeout=aiohttp.ClientTimeout(
                    total=self._settings.timeout_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS
                ),
                allow_redirects=False,
            ) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise unavailable("", error) from error
        return _decoded(response.status, content, orjson.loads)

    def _open(self) -> ClientSession:
        if self._session is not None:
            return self._session
        if self._own is None:
            import aiohttp

            connector = aiohttp.TCPConnector(limit=KEPT_CONNECTIONS, ttl_dns_cache=60)
            self._own = aiohttp.ClientSession(connector=connector, trust_env=False)
        return self._own

    async def close(self) -> None:
        """Close the session that was opened here."""
        if self._own is not None:
            await self._own.close()
            self._own = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def fetch_document(url: str, *, timeout_seconds: float = 5) -> bytes:
    """GET a small public document, e.g. the key set of the auth server. Raises Unavailable."""
    import urllib3

    try:
        timeout = urllib3.Timeout(total=timeout_seconds)
        response = urllib3.request("GET", url, timeout=timeout, retries=False, redirect=False)
    except urllib3.exceptions.HTTPError as error:
        raise Unavailable("keys_unavailable", "The sign-in service did not answer. Try again.") from error
    if response.status != 200:
        raise Unavailable("keys_unavailable", "The sign-in service did not answer. Try again.")
    return response.data
