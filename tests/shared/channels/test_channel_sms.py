"""Texts: the form that is posted, what an answer means, and finding a message again."""

from __future__ import annotations

import base64
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.channels import Accepted, Adapter, sms
from shared.outbound import Outbound
from shared.settings import ChannelSettings
from shared.signatures import LinkSigner
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.channels.support import (
    ACCOUNT,
    ALERT,
    ALICE,
    FUNCTIONS_URL,
    NOW,
    SERVICE,
    exchange,
    failure_of,
    frozen,
    json_answer,
    looked_up,
    message,
    twilio_error,
)
from tests.shared.raw_server import Behaviour, answer

SID = "SM" + "0a" * 16
CREATED = json_answer(201, {"sid": SID, "status": "accepted", "error_code": None})
UNKNOWN, CONFIGURATION = FailureClass.UNKNOWN, FailureClass.CONFIGURATION


def connect(outbound: Outbound, settings: ChannelSettings) -> Adapter:
    return sms.connect(outbound, settings, frozen())


def test_a_text_is_posted_as_twilio_wants_it() -> None:
    made = exchange(connect, CREATED, [message(expires_at=NOW.timestamp() + 90.7)])
    (request,) = made.requests
    form = dict(request.form)
    assert (request.method, request.target) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    scheme, _, credentials = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(credentials).decode().partition(":")[0]) == ("Basic", ACCOUNT)
    callback = form.pop("StatusCallback")
    assert form == {
        "MessagingServiceSid": SERVICE, "To": ALICE, "Body": message().body, "ValidityPeriod": "90",
    }  # fmt: skip
    assert callback.startswith(f"{FUNCTIONS_URL}/delivery-webhook/twilio/message?")
    assert made.outcomes == [Accepted(SID)]


def test_the_callback_names_its_delivery_and_attempt_and_is_signed() -> None:
    (request,) = exchange(connect, CREATED, [message(17, attempt=3)]).requests
    parts = urlsplit(dict(request.form)["StatusCallback"])
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert (query["d"], query["a"], parts.fragment) == (f"{ALERT}-17", "3", "rc=5&rp=all")
    signer = LinkSigner("alice-keeps-this-secret-very-well-1")
    assert signer.verify_link(query["m"], "delivery", query["d"], query["a"])


@pytest.mark.parametrize(
    ("seconds", "validity"),
    [(None, None), (-5, "1"), (0.2, "1"), (59.9, "59"), (36_000, "36000"), (10**7, "36000")],
)
def test_the_validity_is_what_is_left_of_the_alert(seconds: float | None, validity: str | None) -> None:
    expires_at = None if seconds is None else NOW.timestamp() + seconds
    (request,) = exchange(connect, CREATED, [message(expires_at=expires_at)]).requests
    assert dict(request.form).get("ValidityPeriod") == validity


@pytest.mark.parametrize(
    "body", ["a\nb\r\n", "100 % & = + ; # ?", "émoji 🌊 اِخلاء", "&Body=forged", "x" * 1600, "'; drop table--"]
)
def test_any_text_arrives_as_it_is(body: str) -> None:
    (request,) = exchange(connect, CREATED, [message(body=body)]).requests
    assert [value for name, value in request.form if name == "Body"] == [body]


@pytest.mark.parametrize(
    ("body", "code"), [("", "body_empty"), (" \n", "body_empty"), ("x" * 1601, "body_too_long")]
)
def test_a_body_that_cannot_be_sent_is_not_sent(body: str, code: str) -> None:
    made = exchange(connect, CREATED, [message(body=body)])
    assert failure_of(made.outcomes[0]) == (FailureClass.CONTENT, code)
    assert made.requests == []


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (raw_server.close_after_reading, (UNKNOWN, "connection_lost")),
        (raw_server.hang, (UNKNOWN, "answer_timeout")),
        (raw_server.garbage, (UNKNOWN, "answer_broken")),
        (raw_server.cut_body(201), (UNKNOWN, "answer_broken")),
        (raw_server.cut_body(400), (UNKNOWN, "answer_broken")),  # the code that would tell is lost
        (raw_server.endless_body(201), (UNKNOWN, "answer_broken")),
        (raw_server.cut_body(429), (FailureClass.THROTTLE, "http_429")),
        (raw_server.cut_body(401), (CONFIGURATION, "http_401")),
        (answer(200, "<html>It works!</html>"), (UNKNOWN, "answer_broken")),
        (answer(201, "null"), (UNKNOWN, "answer_broken")),
        (answer(201, "[]"), (UNKNOWN, "answer_broken")),
        (answer(201, b"\xff\xfe"), (UNKNOWN, "answer_broken")),
        (answer(201, "[" * 60_000), (UNKNOWN, "answer_broken")),
        (json_answer(201, {"sid": None}), (UNKNOWN, "answer_broken")),
        (json_answer(201, {"sid": "CA" + "0" * 32}), (UNKNOWN, "answer_broken")),
        (json_answer(201, {"sid": SID + "0"}), (UNKNOWN, "answer_broken")),
        (answer(204), (UNKNOWN, "answer_broken")),
        (answer(500, "oops"), (UNKNOWN, "http_500")),
        (answer(502, "bad gateway"), (UNKNOWN, "http_502")),
        (answer(507), (UNKNOWN, "http_507")),
        (twilio_error(20500, 500), (UNKNOWN, "20500")),  # nothing says that it was not taken
        (twilio_error(20503, 503), (UNKNOWN, "20503")),
        (answer(408), (UNKNOWN, "http_408")),
        (answer(302, "", Location="http://127.0.0.1:1/"), (CONFIGURATION, "http_302")),
        (twilio_error(20003, 401), (CONFIGURATION, "20003")),
        (answer(403), (CONFIGURATION, "http_403")),
        (twilio_error(21408, 403), (FailureClass.DESTINATION, "21408")),
        (twilio_error(20404, 404), (CONFIGURATION, "20404")),
        (twilio_error(21610), (FailureClass.OPTED_OUT, "21610")),
        (twilio_error(99999), (FailureClass.PERMANENT, "99999")),
        (answer(400, "not JSON"), (FailureClass.PERMANENT, "http_400")),
        (json_answer(400, {"code": "21610"}), (FailureClass.PERMANENT, "http_400")),
        (twilio_error(20429, 429), (FailureClass.THROTTLE, "20429")),
    ],
)
def test_an_answer_becomes_one_failure_class(
    behaviour: Behaviour | bytes, expected: tuple[FailureClass, str]
) -> None:
    made = exchange(connect, behaviour, timeout_seconds=0.5)
    assert failure_of(made.outcomes[0]) == expected
    assert len(made.requests) == 1, "an adapter never repeats by itself"


def test_a_failure_never_shows_whom_it_was_for() -> None:
    (outcome,) = exchange(connect, twilio_error(21211)).outcomes
    assert ALICE not in repr(outcome)


@pytest.mark.parametrize(
    ("headers", "seconds"), [({"Retry_After": "7"}, 7.0), ({}, None), ({"Retry_After": "x"}, None)]
)
def test_a_throttle_tells_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    (outcome,) = exchange(connect, twilio_error(20429, 429, **headers)).outcomes
    assert getattr(outcome, "retry_after_seconds", 0) == seconds


SINCE = NOW.timestamp()


def row(age_seconds: float = -10, **changes: Any) -> dict[str, Any]:
    """A message of Twilio's list, created `-age_seconds` after the first try."""
    created = format_datetime(type(NOW).fromtimestamp(SINCE - age_seconds, NOW.tzinfo))
    return {
        "sid": SID, "to": ALICE, "body": message().body, "direction": "outbound-api", "status": "queued",
        "date_created": created, "date_sent": None, **changes,
    }  # fmt: skip


def page(*rows: Any) -> bytes:
    return json_answer(200, {"messages": list(rows), "next_page_uri": None})


def test_a_message_is_found_again_by_number_day_and_body() -> None:
    found, requests = looked_up(connect, SINCE, page(row()))
    assert found == Accepted(SID)
    (request,) = requests
    assert request.method == "GET"
    assert dict(request.query) == {"To": ALICE, "PageSize": "100", "DateSent>": "2026-11-23T00:00:00Z"}


def test_the_day_is_asked_with_slack_at_midnight() -> None:
    _, requests = looked_up(connect, SINCE - 12 * 3600 + 2, page(row()))
    assert dict(requests[0].query)["DateSent>"] == "2026-11-22T00:00:00Z"


def test_a_message_that_the_carrier_does_not_have_yet_is_found_without_the_date() -> None:
    found, requests = looked_up(connect, SINCE, page(), page(row()))
    assert found == Accepted(SID)
    assert dict(requests[1].query) == {"To": ALICE, "PageSize": "100"}


def test_the_newest_that_fits_is_taken() -> None:
    older, newest = row(-10, sid="SM" + "1" * 32), row(-20, sid="SM" + "2" * 32)
    assert looked_up(connect, SINCE, page(older, newest))[0] == Accepted("SM" + "2" * 32)


@pytest.mark.parametrize(
    "near",
    [
        row(60),
        row(body="Évacuez"),
        row(body=None),
        row(direction="inbound"),
        row(date_created=None),
        row(date_created="yesterday"),
        row(sid=None),
        "nonsense",
        None,
    ],
)
def test_what_does_not_fit_is_not_ours(near: Any) -> None:
    assert looked_up(connect, SINCE, page(near))[0] is None


def test_a_clock_a_little_behind_ours_is_forgiven() -> None:
    assert looked_up(connect, SINCE + 0.9, page(row(3)))[0] == Accepted(SID)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([answer(500)], (UNKNOWN, "http_500")),
        ([page(), answer(500)], (UNKNOWN, "http_500")),
        ([twilio_error(20429, 429)], (FailureClass.THROTTLE, "20429")),
        ([twilio_error(20003, 401)], (CONFIGURATION, "20003")),
        ([answer(200, "<html>")], (UNKNOWN, "answer_broken")),
        ([json_answer(200, {"messages": None})], (UNKNOWN, "answer_broken")),
        ([page(*[row(body="other")] * 100)], (UNKNOWN, "list_too_long")),
    ],
)
def test_a_list_that_cannot_tell_raises(answers: list[bytes], expected: tuple[FailureClass, str]) -> None:
    assert failure_of(looked_up(connect, SINCE, *answers)[0]) == expected


def test_a_page_of_long_bodies_is_read_whole() -> None:
    long = row(body="🌊" * 800)
    rows = [long] * 99 + [row()]
    assert looked_up(connect, SINCE, page(*rows))[0] == Accepted(SID)
