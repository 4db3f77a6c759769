"""The HTTP edge, for WSGI and ASGI: routes, callers, bodies, problem documents, one log line a request.

function = Function("send-alert", WebSettings.read())

@function.endpoint("POST /", caller=member(verifier, transport, settings))
def send(request: Request, db: Database) -> Response:
    return accepted(alerts.send(db, request.parse(alerts.SendAlert)))

send_alert = function.wsgi_entry()  # a plain function for functions-framework
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from shared import clock, log, problems
from shared.auth import TokenVerifier, bearer, check_secret
from shared.database import Database, Transport
from shared.errors import AppError, Refusal
from shared.settings import DatabaseSettings, WebSettings

if TYPE_CHECKING:
    import flask
    import starlette.requests
    import starlette.responses
    from pydantic import BaseModel

FAILED = "Something failed on our side. It was recorded."
LARGEST_BODY = 1024 * 1024
MOST_FORM_FIELDS = 200

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

Model = TypeVar("Model", bound="BaseModel")


class Headers(Protocol):
    """Header fields by name, in any case."""

    def get(self, name: str, default: str, /) -> str:
        """The field's value, or the default."""


@dataclass(slots=True)
class Request:
    """One request, free of any framework. `query` is the raw query string."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    oversized: bool = False  # the body is larger than LARGEST_BODY and was not kept

    def parse(self, model: type[Model]) -> Model:
        """The JSON body as a strict model. Raises Refusal 415, 400 (malformed) or 422 (with `errors`)."""
        from pydantic import ValidationError

        self._require("application/json")
        try:
            return model.model_validate_json(self.body, strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise problems.from_validation([dict(e) for e in found]) from None

    def form(self) -> list[tuple[str, str]]:
        """The pairs of a form body, repeated and empty ones too. Raises Refusal 415 or 400."""
        self._require("application/x-www-form-urlencoded")
        try:
            text = self.body.decode("ascii")
            return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FORM_FIELDS, errors="strict")
        except ValueError:
            raise Refusal("form_malformed", "The body is not a form that can be read.", status=400) from None

    def _require(self, media_type: str) -> None:
        given = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != media_type:
            raise Refusal("media_type_unsupported", f"Send the body as {media_type}.", status=415)


@dataclass(slots=True)
class Response:
    """What goes back. `close` ends the connection: the rest of a body that was refused is not read."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False


def ok(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode())


def accepted(value: Any) -> Response:
    return ok(value, 202)


def no_content() -> Response:
    return Response(204, content_type="")


Caller = Callable[[Request], Any]  # checks who calls and gives the handler its second argument


def member(verifier: TokenVerifier, transport: Transport, settings: DatabaseSettings) -> Caller:
    """A signed-in member: the handler gets a Database that carries the member's own token."""

    def identify(request: Request) -> Database:
        verified = verifier.verify(bearer(request.headers.get("authorization", "")))
        return Database(transport, settings, verified.token)

    return identify


def callback(transport: Transport, settings: DatabaseSettings) -> Caller:
    """A provider, proved by the handler from the signature: the handler gets a Database with our own
    identity.
    """
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
            return _to_flask(self.respond(_from_flask(request)))

        return entry

    def asgi_entry(
        self,
    ) -> Callable[[starlette.requests.Request], Awaitable[starlette.responses.Response]]:
        """The coroutine function that functions-framework (`--asgi`) calls with Starlette's request."""

        async def entry(request: starlette.requests.Request) -> starlette.responses.Response:
            return _to_starlette(await self.respond_async(await _from_starlette(request)))

        return entry


def _problem(error: AppError) -> Response:
    return Response(
        error.status,
        problems.document(error),
        problems.CONTENT_TYPE,
        dict(error.headers),
        close=error.status == 413,
    )


def _from_flask(request: flask.Request) -> Request:
    headers: Headers = request.headers
    query = request.query_string.decode("latin-1")
    length = request.content_length
    if length is not None and length > LARGEST_BODY:
        return Request(request.method, request.path, query, headers, oversized=True)
    # without a length the body is chunked, or there is none
    body = request.get_data() if length is not None else request.stream.read(LARGEST_BODY + 1)
    return Request(request.method, request.path, query, headers, body, oversized=len(body) > LARGEST_BODY)


def _to_flask(response: Response) -> flask.Response:
    from flask import Response as FlaskResponse

    # functions-framework reads the whole rest of a request before it answers, unless the answer is a stream
    body: Any = iter([response.body]) if response.close else response.body
    answer = FlaskResponse(
        body, response.status, response.headers, content_type=response.content_type or None
    )
    if not response.content_type:
        del answer.headers["Content-Type"]
    if response.close:
        answer.headers["Connection"] = "close"
    return answer


async def _from_starlette(request: starlette.requests.Request) -> Request:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            break
    headers = request.headers
    oversized = len(body) > LARGEST_BODY
    return Request(request.method, request.url.path, request.url.query, headers, bytes(body), oversized)


def _to_starlette(response: Response) -> starlette.responses.Response:
    from starlette.responses import Response as StarletteResponse

    headers = dict(response.headers) | ({"Connection": "close"} if response.close else {})
    return StarletteResponse(
        response.body, response.status, headers, media_type=response.content_type or None
    )
