"""The HTTP edge: routes, bodies, problems, headers and the log line, through Flask and Starlette as deployed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import flask
import httpx
import pytest
import starlette.applications
import starlette.routing
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import AppError, Refusal, Unavailable
from shared.settings import WebSettings
from shared.web import LARGEST_BODY, Function, Request, Response, accepted, internal, no_content, ok

CONSOLE = "https://console.example.com"
SECRET = "dispatch-0123456789abcdef0123456789abcdef"
CANARY = "+33612345678"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=5)
    count: int = 1


def _function() -> Function:
    function = Function("example", WebSettings(frozenset({CONSOLE})))

    def anyone(_: Request) -> str:
        return "who"

    @function.endpoint("POST /", caller=anyone)
    def order(request: Request, caller: str) -> Response:
        return accepted({"name": request.parse(Order).name, "caller": caller})

    @function.endpoint("POST /form", caller=anyone)
    def form(request: Request, _: str) -> Response:
        return ok(request.form())

    @function.endpoint("GET /nothing", caller=anyone)
    def nothing(_request: Request, _: str) -> Response:
        return no_content()

    @function.endpoint("GET /fails/refusal", caller=anyone)
    def refuses(_request: Request, _: str) -> Response:
        raise Refusal(
            "credits_insufficient", "Buy credits.", status=402, members={"need": 5, "code": "forged"}
        )

    @function.endpoint("GET /fails/unavailable", caller=anyone)
    def unavailable(_request: Request, _: str) -> Response:
        raise Unavailable("database_unavailable", "Again.", headers={"Retry-After": "2"})

    @function.endpoint("GET /fails/badly", caller=anyone)
    def fails(_request: Request, _: str) -> Response:
        raise ValueError(CANARY)

    @function.endpoint("POST /internal", caller=internal(SECRET))
    def inside(_request: Request, _: None) -> Response:
        return no_content()

    return function


Call = Callable[..., Any]


def _through_flask() -> Call:
    app = flask.Flask("example")
    entry = _function().wsgi_entry()
    app.add_url_rule("/", "run", lambda: entry(flask.request), methods=METHODS)
    app.add_url_rule("/<path:path>", "run_path", lambda path: entry(flask.request), methods=METHODS)
    client = app.test_client()

    def call(method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = client.open(path, method=method, data=body, headers=names)
        return (
            answer.status_code,
            answer.data,
            {name.lower(): value for name, value in answer.headers.items()},
        )

    return call


def _through_starlette() -> Call:
    function = _function()
    respond = function.respond

    async def respond_async(request: Request) -> Response:
        return await asyncio.to_thread(respond, request)  # the handlers of this test are plain functions

    function.respond_async = respond_async  # type: ignore[method-assign]
    route = starlette.routing.Route("/{path:path}", function.asgi_entry(), methods=METHODS)
    transport = httpx.ASGITransport(starlette.applications.Starlette(routes=[route]))

    async def send(method: str, path: str, body: bytes, headers: dict[bytes, bytes]) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://example") as client:
            return await client.request(method, path, content=body, headers=headers)

    def call(method: str, path: str, body: bytes = b"", **headers: str) -> Any:
        names = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
        answer = asyncio.run(send(method, path, body, names))
        return answer.status_code, answer.content, dict(answer.headers)

    return call


@pytest.fixture(params=[_through_flask, _through_starlette], ids=["flask", "starlette"])
def call(request: pytest.FixtureRequest) -> Call:
    made: Call = request.param()
    return made


JSON = {"content_type": "application/json"}


def _problem(answer: tuple[int, bytes, dict[str, str]]) -> dict[str, Any]:
    status, body, headers = answer
    assert headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    assert problem["type"] == "https://credoalert.com/problems/" + problem["code"].replace("_", "-")
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_a_good_request_is_answered(call: Call) -> None:
    status, body, headers = call("POST", "/", b'{"name":"abc"}', **JSON, x_request_id="req-1")
    assert (status, json.loads(body)) == (202, {"name": "abc", "caller": "who"})
    assert headers["x-request-id"] == "req-1"
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "é"])
def test_a_strange_request_id_is_replaced(call: Call, given: str) -> None:
    _, _, headers = call("GET", "/nothing", x_request_id=given.encode("utf-8").decode("latin-1"))
    assert headers["x-request-id"] != given
    assert len(headers["x-request-id"]) == 32


def test_health_is_answered_without_a_log_line(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    status, body, headers = call("GET", "/healthz")
    assert (status, body) == (204, b"")
    assert "content-type" not in headers
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        (b"", 400, "json_malformed", "not JSON"),
        (b"{", 400, "json_malformed", "line 1, column 1"),
        (b'{"name":"abc",}', 400, "json_malformed", "line 1, column 15"),
        (b'{\n"name":\xff}', 400, "json_malformed", "not JSON"),
        (b'{"name":"\\ud800"}', 400, "json_malformed", "not JSON"),
        (b"[" * 100_000, 400, "json_malformed", "not JSON"),
        (b"[]", 422, "body_invalid", "The body must be an object"),
        (b"null", 422, "body_invalid", "The body must be an object"),
        (b"{}", 422, "body_invalid", "/name is missing"),
        (b'{"name":1}', 422, "body_invalid", "/name must be a text"),
        (b'{"name":"abcdef"}', 422, "body_invalid", "/name must have at most 5 characters"),
        (b'{"name":""}', 422, "body_invalid", "/name must have at least 1 characters"),
        (b'{"name":"a","count":"1"}', 422, "body_invalid", "/count must be a whole number"),
        (b'{"name":"a","count":true}', 422, "body_invalid", "/count must be a whole number"),
        (b'{"name":"a","x/y~z":1}', 422, "body_invalid", "/x~1y~0z is not a known name"),
    ],
)
def test_a_bad_body_is_told_by_place_and_reason(
    call: Call, body: bytes, status: int, code: str, detail: str
) -> None:
    answer = call("POST", "/", body, **JSON)
    problem = _problem(answer)
    assert (answer[0], problem["code"]) == (status, code)
    assert detail in problem["detail"]


def test_every_fault_of_a_body_is_listed_and_no_value_is_repeated(call: Call) -> None:
    body = json.dumps({"name": CANARY, "count": CANARY, "other": CANARY}).encode()
    answer = call("POST", "/", body, **JSON)
    assert {error["pointer"] for error in _problem(answer)["errors"]} == {"/name", "/count", "/other"}
    assert CANARY not in answer[1].decode()


@pytest.mark.parametrize(
    "media_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"]
)
def test_another_media_type_is_refused(call: Call, media_type: str) -> None:
    answer = call("POST", "/", b'{"name":"a"}', content_type=media_type)
    assert (answer[0], _problem(answer)["code"]) == (415, "media_type_unsupported")


def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_not(call: Call) -> None:
    text = b'{"name":"a"}'
    status, _, _ = call("POST", "/", text + b" " * (LARGEST_BODY - len(text)), **JSON)
    assert status == 202
    answer = call("POST", "/", text + b" " * (LARGEST_BODY - len(text) + 1), **JSON)
    assert (answer[0], _problem(answer)["code"]) == (413, "body_too_large")
    assert answer[2]["connection"] == "close"


def test_forms_keep_repeated_and_empty_fields(call: Call) -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    status, body, _ = call("POST", "/form", b"a=1&a=2&b=&c=%C3%A9+x", **form)
    assert (status, json.loads(body)) == (200, [["a", "1"], ["a", "2"], ["b", ""], ["c", "é x"]])
    for wrong in (b"a=%FF", b"a=\xff", b"&".join(b"a=1" for _ in range(201))):
        answer = call("POST", "/form", wrong, **form)
        assert (answer[0], _problem(answer)["code"]) == (400, "form_malformed")


def test_unknown_paths_and_methods_are_refused(call: Call) -> None:
    for path in ("/nowhere", "/form/", "/Form"):
        assert call("POST", path)[0] == 404
    answer = call("DELETE", "/")
    assert (answer[0], _problem(answer)["code"], answer[2]["allow"]) == (405, "method_not_allowed", "POST")


def test_a_refusal_becomes_a_problem_and_its_members_can_not_replace_ours(call: Call) -> None:
    problem = _problem(call("GET", "/fails/refusal"))
    assert (problem["status"], problem["code"], problem["need"]) == (402, "credits_insufficient", 5)
    answer = call("GET", "/fails/unavailable")
    assert (answer[0], answer[2]["retry-after"]) == (503, "2")


def test_a_failure_of_ours_has_no_words(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    answer = call("GET", "/fails/badly")
    assert (answer[0], _problem(answer)["code"]) == (500, "internal_error")
    logged = capsys.readouterr().err
    assert CANARY not in answer[1].decode() + logged
    assert '"error":"ValueError"' in logged


def test_one_log_line_a_request_without_its_query(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    call("GET", f"/nothing?phone={CANARY}", x_request_id="req-9")
    (line,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert line | {"time": "", "duration_ms": 0} == {
        "time": "",
        "severity": "info",
        "event": "request",
        "request_id": "req-9",
        "function": "example",
        "method": "GET",
        "route": "GET /nothing",
        "status": 204,
        "duration_ms": 0,
    }


def test_the_console_may_call_from_a_browser_and_other_sites_may_not(call: Call) -> None:
    ask = {"access_control_request_method": "POST", "access_control_request_headers": "authorization"}
    status, _, headers = call("OPTIONS", "/", origin=CONSOLE, **ask)
    assert status == 204
    assert headers["access-control-allow-origin"] == CONSOLE
    assert headers["access-control-allow-methods"] == "POST"
    allowed = headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type", "apikey", "x-request-id", "idempotency-key"} <= set(allowed)
    assert headers["vary"] == "Origin"
    for origin in ("https://evil.example", "null", CONSOLE + ".evil.example"):
        _, _, headers = call("OPTIONS", "/", origin=origin, **ask)
        assert "access-control-allow-origin" not in headers
    _, _, headers = call("POST", "/", b"{}", origin=CONSOLE, **JSON)
    assert headers["access-control-allow-origin"] == CONSOLE


def test_internal_calls_need_the_secret(call: Call) -> None:
    assert call("POST", "/internal", authorization=f"Bearer {SECRET}")[0] == 204
    for wrong in ("", "Bearer wrong", f"Basic {SECRET}", f"Bearer {SECRET}x"):
        answer = call("POST", "/internal", authorization=wrong)
        assert (answer[0], answer[2]["www-authenticate"][:6]) == (401, "Bearer")


def test_a_coroutine_handler_is_awaited_and_its_errors_are_problems() -> None:
    function = Function("example", WebSettings(frozenset()))

    @function.endpoint("POST /", caller=lambda _: None)
    async def run(_request: Request, _: None) -> Response:
        await asyncio.sleep(0)
        return ok({"sent": 1})

    @function.endpoint("POST /fails", caller=lambda _: None)
    async def fails(_request: Request, _: None) -> Response:
        await asyncio.sleep(0)
        raise AppError("internal_error", "No.")

    headers: dict[str, str] = {}
    assert asyncio.run(function.respond_async(Request("POST", "/", "", headers))).body == b'{"sent":1}'
    assert asyncio.run(function.respond_async(Request("POST", "/fails", "", headers))).status == 500
