"""Between the frameworks that serve us (Flask, Starlette) and our own Request and Response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.exchange import LARGEST_BODY, Headers, Request, Response

if TYPE_CHECKING:
    import flask
    import starlette.requests
    import starlette.responses


def from_flask(request: flask.Request) -> Request:
    headers: Headers = request.headers
    query = request.query_string.decode("latin-1")
    length = request.content_length
    if length is not None and length > LARGEST_BODY:
        return Request(request.method, request.path, query, headers, oversized=True)
    # without a length the body is chunked, or there is none
    body = request.get_data() if length is not None else request.stream.read(LARGEST_BODY + 1)
    return Request(request.method, request.path, query, headers, body, oversized=len(body) > LARGEST_BODY)


def to_flask(response: Response) -> flask.Response:
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


async def from_starlette(request: starlette.requests.Request) -> Request:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            break
    headers = request.headers
    oversized = len(body) > LARGEST_BODY
    return Request(request.method, request.url.path, request.url.query, headers, bytes(body), oversized)


def to_starlette(response: Response) -> starlette.responses.Response:
    from starlette.responses import Response as StarletteResponse

    headers = dict(response.headers) | ({"Connection": "close"} if response.close else {})
    return StarletteResponse(
        response.body, response.status, headers, media_type=response.content_type or None
    )
