"""The HTTP edge, for WSGI and ASGI: routes, callers, problem documents, one log line a request.

function = Function("send-alert", WebSettings.read())

@function.endpoint("POST /", caller=member(verifier, transport, settings))
def send(request: Request, db: Database) -> Response:
    return accepted(alerts.send(db, request.parse(alerts.SendAlert)))

send_alert = function.wsgi_entry()  # a plain function for functions-framework
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared import clock, hosts, log, problems
from shared.auth import TokenVerifier, bearer, check_secret
from shared.database import Database, Transport
from shared.errors import AppError, Refusal
from shared.exchange import LARGEST_BODY, Request, Response, accepted, no_content, ok
from shared.settings import DatabaseSettings, WebSettings

if TYPE_CHECKING:
    import flask
    import starlette.requests
    import starlette.responses

__all__ = [
    "LARGEST_BODY",
    "Caller",
    "Function",
    "Request",
    "Response",
    "accepted",
    "callback",
    "internal",
    "member",
    "no_content",
    "ok",
]

FAILED = "Something failed on our side. It was recorded."

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_CORS_HEADERS = {
    "Access-Control-Allow-Headers": (
        "authorization, content-type, apikey, x-client-info, x-request-id, idempotency-key"
    ),
    "Access-Control-Expose-Headers": "x-request-id, retry-after",
    "Access-Control-Max-Age": "600",
}

Caller = Callable[[Request], Any]  # checks who calls and gives the handler its second argument


def member(verifier: TokenVerifier, transport: Transport, settings: DatabaseSettings) -> Caller:
    """A signed-in member: the handler gets a Database that carries the member's own token."""

    def identify(request: Request) -> Database:
        verified = verifier.verify(bearer(request.headers.get("authorization", "")))
        return Database(transport, settings, verified.token)

    return identify


def callback(transport: Transport, settings: DatabaseSettings) -> Caller:
    """A provider, proved by the handler from the signature: the handler gets our own Database."""
    return lambda _request: Database(transport, settings)


def internal(secret: str) -> Caller:
    """Our own timer or another function, by the dispatch secret: the handler gets None."""
    return lambda request: check_secret(bearer(request.headers.get("authorization", "")), secret)


@dataclass(slots=True)
class _Route:
    template: str
    caller: Caller
    handler: Callable[[Request, Any], Any]


@dataclass(slots=True)
class _Exchange:
    route: str = ""
    response: Response = field(default_factory=no_content)


class Function:
    """One deployed function: its routes, and what every request goes through."""

    def __init__(self, name: str, settings: WebSettings, *, now: clock.Clock = clock.system) -> None:
        self.name = name
        self._settings = settings
        self._clock = now
        self._routes: dict[str, dict[str, _Route]] = {}

    def endpoint(self, template: str, *, caller: Caller) -> Callable[[Any], Any]:
        """Registers a handler for e.g. "POST /quote": `(request, what the caller check gave) -> Response`."""
        method, path = template.split(" ")

        def register(handler: Any) -> Any:
            self._routes.setdefault(path, {})[method] = _Route(template, caller, handler)
            return handler

        return register

    def respond(self, request: Request) -> Response:
        """Answers one request; never raises."""
        with self._exchange(request) as exchange:
            route = self._route(request, exchange)
            if route is not None:
                exchange.response = route.handler(request, route.caller(request))
        return exchange.response

    async def respond_async(self, request: Request) -> Response:
        """As `respond`, for handlers that are coroutines."""
        with self._exchange(request) as exchange:
            route = self._route(request, exchange)
            if route is not None:
                answer: Awaitable[Response] = route.handler(request, route.caller(request))
                exchange.response = await answer
        return exchange.response

    def _route(self, request: Request, exchange: _Exchange) -> _Route | None:
        """The route; None where an empty answer will do (health, preflight). Raises Refusal 404, 405, 413."""
        if request.path == "/healthz" and request.method in ("GET", "HEAD"):
            return None
        methods = self._routes.get(request.path)
        if methods is None:
            raise Refusal("not_found", "Nothing is served at this path.", status=404)
        if request.method == "OPTIONS" and request.headers.get("access-control-request-method", ""):
            return None
        route = methods.get(request.method)
        if route is None:
            allowed = ", ".join(sorted(methods))
            raise Refusal(
                "method_not_allowed", f"Use {allowed} here.", status=405, headers={"Allow": allowed}
            )
        exchange.route = route.template
        if request.oversized:
            raise Refusal("body_too_large", "A body has at most 1 MiB (1,048,576 bytes).", status=413)
        return route

    @contextmanager
    def _exchange(self, request: Request) -> Iterator[_Exchange]:
        started = self._clock.monotonic()
        exchange = _Exchange()
        given = request.headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._clock.uuid4().hex
        with log.bound_request_id(request_id):
            try:
                yield exchange
            except AppError as error:
                exchange.response = _problem(error)
            except Exception as error:  # the edge: whatever it is, the caller gets no words of it
                log.log.error("unexpected_error", error, function=self.name, route=exchange.route)
                exchange.response = _problem(AppError("internal_error", FAILED))
            self._finish(request, exchange, request_id, started)

    def _finish(self, request: Request, exchange: _Exchange, request_id: str, started: float) -> None:
        headers = exchange.response.headers
        headers["X-Request-Id"] = request_id
        if exchange.response.body:
            headers |= _SECURITY_HEADERS
        origin = request.headers.get("origin", "")
        if origin in self._settings.cors_origins:
            headers |= _CORS_HEADERS | {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": ", ".join(sorted(self._routes.get(request.path, ()))),
                "Vary": "Origin",
            }
        if request.path != "/healthz":
            log.log.info(
                "request",
                function=self.name,
                method=request.method,
                route=exchange.route,
                status=exchange.response.status,
                duration_ms=round((self._clock.monotonic() - started) * 1000, 1),
            )

    def wsgi_entry(self) -> Callable[[flask.Request], flask.Response]:
        """The function that functions-framework calls with Flask's request."""

        def entry(request: flask.Request) -> flask.Response:
            return hosts.to_flask(self.respond(hosts.from_flask(request)))

        return entry

    def asgi_entry(
        self,
    ) -> Callable[[starlette.requests.Request], Awaitable[starlette.responses.Response]]:
        """The coroutine function that functions-framework (`--asgi`) calls with Starlette's request."""

        async def entry(request: starlette.requests.Request) -> starlette.responses.Response:
            return hosts.to_starlette(await self.respond_async(await hosts.from_starlette(request)))

        return entry


def _problem(error: AppError) -> Response:
    return Response(
        error.status,
        problems.document(error),
        problems.CONTENT_TYPE,
        dict(error.headers),
        close=error.status == 413,
    )
