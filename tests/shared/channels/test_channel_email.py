"""E-mail: one frozen batch, its key, and what an answer means for each of its messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.channels import Accepted, Message, email
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.channels.support import (
    ALERT,
    NOW,
    exchange,
    failure_of,
    json_answer,
    looked_up,
    message,
    resend_error,
)
from tests.shared.raw_server import Behaviour, answer

UNKNOWN, CONFIGURATION = FailureClass.UNKNOWN, FailureClass.CONFIGURATION
PERMANENT, CONTENT = FailureClass.PERMANENT, FailureClass.CONTENT


def mail(number: int = 1, to: str = "alice@example.com", **changes: object) -> Message:
    return message(number, to, **changes)


def taken(count: int, errors: list[dict[str, Any]] | None = None) -> bytes:
    document: dict[str, Any] = {"data": [{"id": f"id-{number}"} for number in range(count)]}
    return json_answer(200, {**document, **({"errors": errors} if errors is not None else {})})


def test_a_batch_is_posted_as_resend_wants_it() -> None:
    made = exchange(
        email.connect, taken(2), [mail(1, html="<p>é</p>"), mail(2, "bob@example.com", attempt=3)]
    )
    (request,) = made.requests
    assert (request.method, request.target) == ("POST", "/emails/batch")
    assert request.headers["idempotency-key"] == "chunk-1"
    assert request.headers["x-batch-validation"] == "permissive"
    assert request.headers["authorization"] == "Bearer re_123456789_abcdefghij"
    assert request.headers["content-type"] == "application/json"
    first, second = json.loads(request.body)
    assert first == {
        "from": "Alerts <alerts@credoalert.com>", "to": ["alice@example.com"], "subject": "Crue",
        "text": mail().body, "html": "<p>é</p>",
        "tags": [{"name": "delivery", "value": f"{ALERT}-1"}, {"name": "attempt", "value": "1"}],
    }  # fmt: skip
    assert second["tags"] == [{"name": "delivery", "value": f"{ALERT}-2"}, {"name": "attempt", "value": "3"}]
    assert "html" not in second
    assert made.outcomes == [Accepted("id-0"), Accepted("id-1")]


def test_the_same_messages_make_the_same_bytes() -> None:
    batch = [mail(number, html="<p>x</p>") for number in range(1, 101)]
    bodies = {exchange(email.connect, taken(100), batch).requests[0].body for _ in range(2)}
    assert len(bodies) == 1
    assert len(json.loads(bodies.pop())) == 100


def test_errors_are_given_to_the_messages_they_name() -> None:
    errors = [{"index": 1, "message": "Invalid `to` field."}]
    made = exchange(email.connect, taken(2, errors), [mail(number) for number in (1, 2, 3)])
    assert made.outcomes[0] == Accepted("id-0")
    assert failure_of(made.outcomes[1]) == (PERMANENT, "validation_error")
    assert made.outcomes[2] == Accepted("id-1")


def test_all_may_be_refused() -> None:
    errors = [{"index": index, "message": "Invalid"} for index in range(2)]
    made = exchange(email.connect, taken(0, errors), [mail(1), mail(2)])
    assert [failure_of(outcome)[0] for outcome in made.outcomes] == [PERMANENT, PERMANENT]


@pytest.mark.parametrize(
    "character", ["\r\nBcc: eve@example.com", "\n", "\r", "\0", "\t", "\x7f", "\x85", "\u2028"]
)
def test_a_subject_with_a_control_character_is_not_sent_and_stops_no_other(character: str) -> None:
    batch = [mail(1), mail(2, subject=f"Crue{character}"), mail(3)]
    made = exchange(email.connect, taken(2), batch)
    assert [row["tags"][0]["value"][-1] for row in json.loads(made.requests[0].body)] == ["1", "3"]
    assert made.outcomes[0] == Accepted("id-0")
    assert failure_of(made.outcomes[1]) == (CONTENT, "subject_control_character")
    assert made.outcomes[2] == Accepted("id-1")


@pytest.mark.parametrize(
    "to",
    ["", "alice", "@b.com", "alice@", "a@b@c", "alice@example.com, eve@example.com", "a@example.com\r\nBcc: x@y.z",
     "Alice <alice@example.com>", "alice@example.com;eve@example.com", "alice @example.com"],
)  # fmt: skip
def test_an_address_that_is_more_than_an_address_is_not_sent(to: str) -> None:
    made = exchange(email.connect, taken(0), [mail(to=to)])
    assert failure_of(made.outcomes[0]) == (PERMANENT, "address_invalid")
    assert made.requests == []


@pytest.mark.parametrize("subject", [None, "", "  ", "x" * 999])
def test_a_subject_is_needed_and_fits_a_line(subject: str | None) -> None:
    made = exchange(email.connect, taken(0), [mail(subject=subject)])
    assert failure_of(made.outcomes[0]) == (CONTENT, "subject_length")


def test_text_that_is_no_unicode_is_refused_without_a_request() -> None:
    made = exchange(email.connect, taken(0), [mail(body="\ud800")])
    assert failure_of(made.outcomes[0]) == (CONTENT, "text_invalid")
    assert made.requests == []


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (resend_error(429, "rate_limit_exceeded"), (FailureClass.THROTTLE, "rate_limit_exceeded")),
        (resend_error(429, "daily_quota_exceeded"), (CONFIGURATION, "daily_quota_exceeded")),
        (resend_error(429, "monthly_quota_exceeded"), (CONFIGURATION, "monthly_quota_exceeded")),
        (answer(429, "slow down"), (FailureClass.THROTTLE, "http_429")),
        (resend_error(500, "application_error"), (UNKNOWN, "application_error")),
        (resend_error(503, "internal_server_error"), (UNKNOWN, "internal_server_error")),
        (resend_error(500, "validation_error"), (UNKNOWN, "validation_error")),
        (answer(502, "<html>"), (UNKNOWN, "http_502")),
        (resend_error(409, "concurrent_idempotent_requests"), (UNKNOWN, "concurrent_idempotent_requests")),
        (resend_error(400, "invalid_idempotency_key"), (CONFIGURATION, "invalid_idempotency_key")),
        (resend_error(401, "missing_api_key"), (CONFIGURATION, "missing_api_key")),
        (resend_error(401, "restricted_api_key"), (CONFIGURATION, "restricted_api_key")),
        (resend_error(403, "invalid_api_key"), (CONFIGURATION, "invalid_api_key")),
        (resend_error(403, "validation_error"), (CONFIGURATION, "validation_error")),  # domain not verified
        (resend_error(422, "invalid_from_address"), (CONFIGURATION, "invalid_from_address")),
        (resend_error(422, "invalid_access"), (CONFIGURATION, "invalid_access")),
        (resend_error(422, "invalid_region"), (CONFIGURATION, "invalid_region")),
        (resend_error(404, "not_found"), (CONFIGURATION, "not_found")),
        (resend_error(405, "method_not_allowed"), (CONFIGURATION, "method_not_allowed")),
        (resend_error(422, "validation_error"), (PERMANENT, "validation_error")),
        (resend_error(422, "missing_required_field"), (PERMANENT, "missing_required_field")),
        (resend_error(422, "invalid_attachment"), (PERMANENT, "invalid_attachment")),
        (resend_error(451, "security_error"), (CONTENT, "security_error")),
        (resend_error(418, "something_new"), (PERMANENT, "something_new")),
        (answer(301), (CONFIGURATION, "http_301")),
        (answer(408), (UNKNOWN, "http_408")),
        (answer(200, "<html>It works!</html>"), (UNKNOWN, "answer_broken")),
        (answer(200, "{}"), (UNKNOWN, "answer_broken")),
        (json_answer(200, {"data": [{"id": "1"}]}), (UNKNOWN, "answer_broken")),
        (json_answer(200, {"data": [{"id": "1"}, {"id": None}], "errors": "x"}), (UNKNOWN, "answer_broken")),
        (json_answer(200, {"data": [{"id": 1}, {}]}), (UNKNOWN, "answer_broken")),
        (raw_server.close_after_reading, (UNKNOWN, "connection_lost")),
        (raw_server.hang, (UNKNOWN, "answer_timeout")),
        (raw_server.cut_body(200), (UNKNOWN, "answer_broken")),
        (raw_server.cut_body(422), (UNKNOWN, "answer_broken")),
    ],
)
def test_an_answer_to_the_batch_is_the_outcome_of_each(
    behaviour: Behaviour | bytes, expected: tuple[FailureClass, str]
) -> None:
    made = exchange(email.connect, behaviour, [mail(1), mail(2)], timeout_seconds=0.5)
    assert [failure_of(outcome) for outcome in made.outcomes] == [expected, expected]
    assert len(made.requests) == 1


def test_a_key_that_was_used_for_other_bytes_was_accepted_before() -> None:
    made = exchange(email.connect, resend_error(409, "invalid_idempotent_request"), [mail(1), mail(2)])
    assert made.outcomes == [Accepted(""), Accepted("")]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "3"}, 3.0),
        ({"ratelimit_reset": "2"}, 2.0),
        ({"retry_after": "1", "ratelimit_reset": "9"}, 1.0),
        ({}, None),
    ],
)
def test_a_throttle_tells_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    made = exchange(email.connect, resend_error(429, "rate_limit_exceeded", **headers), [mail()])
    assert getattr(made.outcomes[0], "retry_after_seconds", 0) == seconds


def test_a_look_up_is_answered_by_sending_again() -> None:
    found, requests = looked_up(email.connect, NOW.timestamp(), taken(0))
    assert failure_of(found) == (UNKNOWN, "send_again_to_know")
    assert requests == []
