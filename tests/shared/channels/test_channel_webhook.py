"""Webhooks: what is posted, that it verifies, and what an answer means."""

from __future__ import annotations

import asyncio
import json

import pytest
import standardwebhooks

from shared.channels import Accepted, Message, Outcome, webhook
from shared.clock import FrozenClock
from shared.outbound import Outbound
from shared.signatures import WebhookSigner
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.channels.support import (
    ALERT,
    NOW,
    ORGANISATION,
    channel_settings,
    failure_of,
    frozen,
    looked_up,
    message,
)
from tests.shared.raw_server import Behaviour, Received, answer, answering, serve

TRANSIENT, PERMANENT, UNKNOWN = FailureClass.TRANSIENT, FailureClass.PERMANENT, FailureClass.UNKNOWN


def post(
    behaviour: Behaviour | bytes,
    *,
    now: FrozenClock | None = None,
    path: str = "/sink/a?b=c",
    **changes: object,
) -> tuple[Outcome, list[Received], Message]:
    """Send one webhook to a local sink that behaves so."""
    told = answering(behaviour) if isinstance(behaviour, bytes) else behaviour

    async def run() -> tuple[Outcome, list[Received], Message]:
        async with serve(told) as server:
            outbound = Outbound(timeout_seconds=0.5, local_sink=server.url)
            async with outbound:
                settings = channel_settings(server.url)
                adapter = (
                    webhook.connect(outbound, settings, now) if now else webhook.connect(outbound, settings)
                )
                sent = message(17, f"{server.url}{path}", **changes)
                (outcome,) = await adapter.send([sent], "key")
                return outcome, server.requests, sent

    return asyncio.run(run())


def test_an_alert_is_posted_as_a_standard_webhook_with_ids_rather_than_addresses() -> None:
    outcome, (request,), sent = post(answer(200), now=frozen())
    assert outcome == Accepted(f"{ALERT}-17")
    assert (request.method, request.target) == ("POST", "/sink/a?b=c")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"{ALERT}-17"
    assert request.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    document = json.loads(request.body)
    assert document == {
        "type": "alert.delivery", "timestamp": "2026-11-23T12:00:00Z",
        "data": {
            "alert_id": "0198c0de-0000-7000-8000-000000000001", "delivery_id": f"{ALERT}-17", "subject": "Crue",
            "body": sent.body, "language": "fr",
        },
    }  # fmt: skip
    assert request.body == json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def test_it_verifies_with_the_endpoints_secret_and_no_other() -> None:
    _, (request,), sent = post(answer(204))
    signer = WebhookSigner("our-own-signing-key-of-forty-characters!")
    standardwebhooks.Webhook(signer.secret(ORGANISATION, sent.to)).verify(request.body, request.headers)
    for other in (signer.secret(ORGANISATION, sent.to + "/"), signer.secret("bob", sent.to)):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(other).verify(request.body, request.headers)


def test_the_webhook_id_stays_the_same_over_attempts_and_the_timestamp_moves() -> None:
    clock, seen = frozen(), []
    for attempt in (1, 2):
        _, (request,), _ = post(answer(503), now=clock, attempt=attempt)
        seen.append((request.headers["webhook-id"], request.headers["webhook-timestamp"]))
        clock.advance(5)
    assert seen[0][0] == seen[1][0]
    assert int(seen[1][1]) - int(seen[0][1]) == 5


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success_whatever_its_body(status: int) -> None:
    assert post(answer(status, b"" if status == 204 else b"\xff<html>"))[0] == Accepted(f"{ALERT}-17")


@pytest.mark.parametrize(
    "behaviour", [raw_server.endless_body(200), raw_server.cut_body(200), raw_server.stalled_body(200)]
)
def test_the_status_is_enough_when_the_body_does_not_end(behaviour: Behaviour) -> None:
    assert post(behaviour)[0] == Accepted(f"{ALERT}-17")


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (answer(301, Location="http://127.0.0.1:1/"), (PERMANENT, "http_301")),
        (answer(307, Location="http://127.0.0.1:1/"), (PERMANENT, "http_307")),
        (answer(304), (PERMANENT, "http_304")),
        (answer(400), (PERMANENT, "http_400")),
        (answer(401), (PERMANENT, "http_401")),
        (answer(404), (PERMANENT, "http_404")),
        (answer(410), (PERMANENT, "endpoint_gone")),
        (answer(408), (TRANSIENT, "http_408")),
        (answer(425), (TRANSIENT, "http_425")),
        (answer(429), (FailureClass.THROTTLE, "http_429")),
        (answer(500), (UNKNOWN, "http_500")),
        (answer(503), (UNKNOWN, "http_503")),
        (answer(599), (UNKNOWN, "http_599")),
        (raw_server.close_after_reading, (UNKNOWN, "connection_lost")),
        (raw_server.hang, (UNKNOWN, "answer_timeout")),
        (raw_server.garbage, (UNKNOWN, "answer_broken")),
    ],
)
def test_an_answer_becomes_one_failure_class(
    behaviour: Behaviour | bytes, expected: tuple[FailureClass, str]
) -> None:
    outcome, requests, _ = post(behaviour)
    assert failure_of(outcome) == expected
    assert len(requests) == 1


def test_retry_after_is_obeyed() -> None:
    outcome, _, _ = post(answer(503, Retry_After="120"))
    assert getattr(outcome, "retry_after_seconds", 0) == 120


@pytest.mark.parametrize(
    ("to", "code"),
    [
        ("https://127.0.0.1/x", "url_private"), ("https://10.0.0.1:8443/x", "url_private"),
        ("http://example.com/x", "url_not_https"), ("https://example.com:8080/x", "url_port"),
        ("https://user:word@example.com/", "url_credentials"), ("nonsense", "url_not_https"), ("", "url_length"),
    ],
)  # fmt: skip
def test_an_endpoint_that_is_not_public_is_refused(to: str, code: str) -> None:
    async def run() -> Outcome:
        async with Outbound() as outbound:
            adapter = webhook.connect(outbound, channel_settings("http://127.0.0.1:1"))
            return (await adapter.send([message(1, to)], "key"))[0]

    assert failure_of(asyncio.run(run())) == (PERMANENT, code)


def test_text_that_is_no_unicode_is_refused() -> None:
    outcome, requests, _ = post(answer(200), body="\ud800")
    assert failure_of(outcome) == (FailureClass.CONTENT, "text_invalid")
    assert requests == []


def test_a_look_up_is_answered_by_sending_again() -> None:
    found, requests = looked_up(webhook.connect, NOW.timestamp(), answer(200))
    assert failure_of(found) == (UNKNOWN, "send_again_to_know")
    assert requests == []
