"""The database's door: identity, errors and their words, over real HTTP, the same by each of the three ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared import log
from shared.database import AsyncDatabase, Database, KeepAliveTransport, PostgrestTransport, fetch_document
from shared.errors import AppError, Refusal, Unavailable
from shared.settings import DatabaseSettings
from tests.shared.rest_stand_in import API_KEY, RestStandIn, rest_stand_in

Rpc = Callable[..., Any]


@pytest.fixture
def rest() -> Iterator[RestStandIn]:
    with rest_stand_in() as stand_in:
        yield stand_in


def _async_rpc(settings: DatabaseSettings) -> Rpc:
    def rpc(name: str, **arguments: Any) -> Any:
        async def call() -> Any:
            async with AsyncDatabase(settings) as db:
                return await db.rpc(name, **arguments)

        return asyncio.run(call())

    return rpc


@pytest.fixture(params=["keep_alive", "postgrest", "async"])
def door(request: pytest.FixtureRequest) -> Callable[[DatabaseSettings], Rpc]:
    def open_door(settings: DatabaseSettings) -> Rpc:
        if request.param == "async":
            return _async_rpc(settings)
        kind = KeepAliveTransport if request.param == "keep_alive" else PostgrestTransport
        return Database(kind(settings), settings).rpc

    return open_door


Door = Callable[[DatabaseSettings], Rpc]


def test_a_call_carries_its_arguments_and_our_identity(rest: RestStandIn, door: Door) -> None:
    rest.answer = {"stored": 1, "text": "é"}
    with log.bound_request_id("request-1"):
        assert door(rest.settings())("record_receipts", p_receipts=[{"a": "é"}]) == {"stored": 1, "text": "é"}
    (call,) = rest.calls
    assert call.function == "record_receipts"
    assert call.arguments == {"p_receipts": [{"a": "é"}]}
    assert call.headers["apikey"] == API_KEY
    assert call.headers["authorization"] == f"Bearer {API_KEY}"
    assert call.headers["x-request-id"] == "request-1"
    assert call.headers["content-type"] == "application/json"


def test_void_is_none_and_other_values_come_back_as_they_are(rest: RestStandIn, door: Door) -> None:
    rpc = door(rest.settings())
    rest.status = 204
    assert rpc("sweep") is None
    rest.status = 200
    values: list[Any] = [{}, 0, [1], "text", False]
    for value in values:
        rest.answer = value
        assert rpc("anything") == value


@pytest.mark.parametrize("kind", [KeepAliveTransport, PostgrestTransport])
def test_a_members_call_carries_the_members_token(rest: RestStandIn, kind: Any) -> None:
    transport = kind(rest.settings())
    for token in ("token-of-alice", "token-of-bob"):
        Database(transport, rest.settings(), token).rpc("quote_alert")
    assert [call.headers["authorization"] for call in rest.calls] == [
        "Bearer token-of-alice",
        "Bearer token-of-bob",
    ]
    assert {call.headers["apikey"] for call in rest.calls} == {API_KEY}


def test_a_refusal_keeps_its_code_words_and_members(rest: RestStandIn, door: Door) -> None:
    rest.refuse(402, "PT402", "credits_insufficient", json.dumps({"need": 5, "have": 2}), "Buy credits.")
    with pytest.raises(Refusal) as caught:
        door(rest.settings())("send_alert")
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.detail) == (402, "credits_insufficient", "Buy credits.")
    assert refusal.members == {"need": 5, "have": 2}


@pytest.mark.parametrize("details", [None, "no json", '"text"', "[1]"])
def test_a_refusal_without_members_is_still_one(rest: RestStandIn, door: Door, details: Any) -> None:
    rest.refuse(404, "PT404", "group_not_found", details)
    with pytest.raises(Refusal) as caught:
        door(rest.settings())("send_alert")
    assert (caught.value.status, caught.value.members) == (404, {})


# (HTTP status, code, what our caller is told), as PostgREST 12.0.2 answers
FAILURES = [
    (409, "23505", 500),  # unique_violation: the details name the key's value
    (400, "23514", 500),  # check_violation: the details show the row
    (409, "23503", 500),
    (400, "22012", 500),
    (400, "22P02", 500),
    (404, "PGRST202", 500),  # the function is not deployed
    (500, "XX000", 500),
    (403, "42501", 403),
    (401, "PGRST301", 401),
    (401, "PGRST302", 401),
    (500, "57014", 503),  # statement timeout
    (503, "PGRST002", 503),
    (503, "PT503", 503),
    (500, "53300", 503),
    (500, "40001", 503),
]


@pytest.mark.parametrize(("status", "code", "told"), FAILURES)
def test_the_databases_words_stay_here(
    rest: RestStandIn, door: Door, status: int, code: str, told: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rest.refuse(status, code, "canary-message", "Key (value)=(+33612345678) already exists.", "canary-hint")
    with pytest.raises(AppError) as caught:
        door(rest.settings())("import_contacts")
    error = caught.value
    assert error.status == told
    said = f"{error} {error.code} {error.detail} {error.members} {capsys.readouterr().err}"
    for word in ("canary", "+33612345678"):
        assert word not in said
    if told == 401:
        assert error.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("status", "told"), [(502, 503), (503, 503), (504, 503), (500, 500), (404, 500), (401, 401)]
)
def test_a_gateways_page_is_no_answer(rest: RestStandIn, door: Door, status: int, told: int) -> None:
    rest.status, rest.content = status, b"<html>nginx</html>"
    with pytest.raises(AppError) as caught:
        door(rest.settings())("anything")
    assert caught.value.status == told


def test_nobody_there_is_unavailable(door: Door) -> None:
    with rest_stand_in() as stopped:
        settings = stopped.settings()
    with pytest.raises(Unavailable):
        door(settings)("anything")


def test_a_slow_answer_is_unavailable(rest: RestStandIn, door: Door) -> None:
    rest.delay_seconds = 1.5
    with pytest.raises(Unavailable):
        door(rest.settings(timeout_seconds=1))("anything")


def test_a_connection_that_breaks_is_unavailable_and_the_next_call_goes_through(rest: RestStandIn) -> None:
    rpc = Database(KeepAliveTransport(rest.settings()), rest.settings()).rpc
    rest.hang_up = True
    with pytest.raises(Unavailable):
        rpc("anything")
    rest.hang_up, rest.answer = False, {"stored": 1}
    assert rpc("anything") == {"stored": 1}


def test_a_shared_session_stays_open(rest: RestStandIn) -> None:
    async def call() -> bool:
        import aiohttp

        async with aiohttp.ClientSession() as session:
            async with AsyncDatabase(rest.settings(), session) as db:
                await db.rpc("anything")
            return session.closed

    rest.answer = {}
    assert asyncio.run(call()) is False


def test_a_document_that_can_not_be_had_is_unavailable(rest: RestStandIn) -> None:
    with pytest.raises(Unavailable):
        fetch_document(rest.url)  # 501: the stand-in knows only POST
    with pytest.raises(Unavailable):
        fetch_document("http://127.0.0.1:9/nothing", timeout_seconds=1)
