"""Callbacks as the official verifiers see them; how they are repeated, lost, doubled, late and shuffled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
import resend
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from svix.webhooks import Webhook as SvixWebhook
from twilio.request_validator import RequestValidator

from infra.local.carriers import testing
from infra.local.carriers.client import CarriersError
from infra.local.carriers.twilio_callbacks import overrides

ALICE, OURS, SERVICE = "+33612345678", "+15005550006", "MG" + "0" * 32


@pytest.fixture(scope="module")
def receiver() -> Iterator[testing.Receiver]:
    opened = testing.Receiver()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def process(receiver: testing.Receiver) -> Iterator[testing.Running]:
    inbound, events = receiver.url + "/inbound?x=1", receiver.url + "/resend"
    with testing.running(TWILIO_INBOUND_URL=inbound, RESEND_WEBHOOK_URL=events) as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running, receiver: testing.Receiver) -> testing.Running:
    process.control.preset("none")
    process.control.knobs(sms={"receipt_delay_ms": 20}, email={"receipt_delay_ms": 20})
    process.control.reset(seed=7)
    receiver.received.clear()
    receiver.statuses.clear()
    resend.api_url, resend.api_key = process.url, testing.RESEND_API_KEY
    return process


def _text(carriers: testing.Running, url: str, to: str = ALICE, **more: Any) -> str:
    sender = more or {"from_": OURS}
    message = testing.twilio_client(carriers).messages.create(to=to, body="x", status_callback=url, **sender)
    return str(message.sid)


def _verified(receiver: testing.Receiver, callback: testing.Callback) -> dict[str, str]:
    form = dict(parse_qsl(callback.body.decode(), keep_blank_values=True))
    signature, url = callback.headers["x-twilio-signature"], receiver.url + callback.path
    assert RequestValidator(testing.AUTH_TOKEN).validate(url, form, signature)
    assert not RequestValidator("another token").validate(url, form, signature)
    assert not RequestValidator(testing.AUTH_TOKEN).validate(url + "&d=other", form, signature)
    return form


def test_a_message_is_told_queued_sent_delivered(
    carriers: testing.Running, receiver: testing.Receiver
) -> None:
    url = receiver.url + "/sms?d=00ff-1&a=1&m=a%2Bb%3D#rc=5&rp=all"
    sid = _text(carriers, url, messaging_service_sid=SERVICE)
    forms = [_verified(receiver, callback) for callback in receiver.wait(3)]
    assert [form["MessageStatus"] for form in forms] == ["queued", "sent", "delivered"]
    assert {form["MessageSid"] for form in forms} == {sid}
    assert {callback.path for callback in receiver.received} == {"/sms?d=00ff-1&a=1&m=a%2Bb%3D"}
    assert forms[0]["MessagingServiceSid"] == SERVICE
    assert "ErrorCode" not in forms[-1]


def test_an_undelivered_message_says_why(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(sms={"rate_undelivered": 1})
    _text(carriers, receiver.url + "/sms")
    last = _verified(receiver, receiver.wait(2)[-1])
    assert last["MessageStatus"] == "undelivered"
    assert last["ErrorCode"] in {"30003", "30004", "30005", "30006", "30008"}


@pytest.mark.parametrize(
    ("fragment", "retries", "retry_on"),
    [
        ("", 1, {"ct"}),
        ("#rc=5&rp=all", 5, {"ct", "rt", "4xx", "5xx"}),
        ("#rc=3&rp=5xx,ct", 3, {"ct", "5xx"}),
        ("#rc=9", 1, {"ct"}),
        ("#rp=nonsense&rc=0", 0, {"ct"}),
    ],
)
def test_the_fragment_sets_the_retries(fragment: str, retries: int, retry_on: set[str]) -> None:
    assert overrides("http://a/b?c=d" + fragment) == ("http://a/b?c=d", retries, frozenset(retry_on))


def test_retries_as_the_fragment_says(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(sms={"receipts": "final"})
    receiver.statuses[:] = [503, 500, 404, 200]
    _text(carriers, receiver.url + "/sms#rc=5&rp=all")
    receipts = carriers.control.wait_receipts(10)
    assert (receipts["sent"], receipts["failed"], receipts["retried"]) == (1, 0, 3)
    tokens = {callback.headers["i-twilio-idempotency-token"] for callback in receiver.received}
    assert (len(receiver.received), len(tokens)) == (4, 1)


def test_does_not_retry_unless_told(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(sms={"receipts": "final"})
    receiver.statuses[:] = [503]
    _text(carriers, receiver.url + "/sms")
    receipts = carriers.control.wait_receipts(10)
    assert (receipts["sent"], receipts["failed"], receipts["answers"]) == (0, 1, {"503": 1})


def test_nobody_there_is_a_failure_after_the_retries(carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"receipts": "final"})
    _text(carriers, "http://127.0.0.1:9/sms")
    receipts = carriers.control.wait_receipts(10)
    assert (receipts["failed"], receipts["retried"], receipts["answers"]) == (1, 1, {"ct": 2})


def test_email_events_are_signed_three_ways(carriers: testing.Running, receiver: testing.Receiver) -> None:
    sent = resend.Emails.send({
        "from": "us@example.org", "to": ["alice@example.org"], "subject": "é", "text": "x",
        "tags": [{"name": "delivery", "value": "00ff-9"}], "headers": {"X-Ours": "1"},
    })  # fmt: skip
    callbacks = receiver.wait(2)
    for callback in callbacks:
        headers = {name: callback.headers[name] for name in ("svix-id", "svix-timestamp", "svix-signature")}
        standard = {name.replace("svix", "webhook"): value for name, value in headers.items()}
        SvixWebhook(testing.RESEND_WEBHOOK_SECRET).verify(callback.body, headers)
        Webhook(testing.RESEND_WEBHOOK_SECRET).verify(callback.body, standard)
        with pytest.raises(WebhookVerificationError):
            Webhook(testing.RESEND_WEBHOOK_SECRET).verify(callback.body + b" ", standard)
        payload = callback.body.decode()
        short = {name.removeprefix("svix-"): value for name, value in headers.items()}
        resend.Webhooks.verify(
            {"payload": payload, "headers": short, "webhook_secret": testing.RESEND_WEBHOOK_SECRET}  # type: ignore[typeddict-item]
        )
    events = [json.loads(callback.body) for callback in callbacks]
    assert [event["type"] for event in events] == ["email.sent", "email.delivered"]
    data = events[1]["data"]
    assert (data["email_id"], data["to"]) == (sent["id"], ["alice@example.org"])
    assert (data["tags"], data["headers"]) == ({"delivery": "00ff-9"}, [{"name": "X-Ours", "value": "1"}])


def test_bounces_and_complaints_are_told(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(email={"rate_bounce": 1, "receipts": "final"})
    for number in range(20):
        _mail(f"{number}@example.org")
    kinds = Counter(json.loads(each.body)["data"]["bounce"]["type"] for each in receiver.wait(20))
    assert set(kinds) == {"Permanent", "Transient"}
    carriers.control.knobs(email={"rate_bounce": 0, "rate_complaint": 1, "receipts": "on"})
    receiver.received.clear()
    _mail("bob@example.org")
    types = [json.loads(each.body)["type"] for each in receiver.wait(3)]
    assert types == ["email.sent", "email.delivered", "email.complained"]


@pytest.mark.parametrize("word", ["delivered", "bounced", "complained", "suppressed"])
def test_resends_test_addresses_do_as_they_say(
    carriers: testing.Running, receiver: testing.Receiver, word: str
) -> None:
    _mail(f"{word}+anything@resend.dev")
    assert json.loads(receiver.wait(2)[-1].body)["type"] == f"email.{word}"


def _mail(to: str) -> None:
    resend.Emails.send({"from": "us@example.org", "to": [to], "subject": "s", "text": "x"})


def test_an_event_is_repeated_with_its_id_until_it_is_taken(
    carriers: testing.Running, receiver: testing.Receiver
) -> None:
    carriers.control.knobs(email={"receipts": "final"})
    receiver.statuses[:] = [500, 401]
    _mail("alice@example.org")
    assert carriers.control.wait_receipts(10)["retried"] == 2
    assert len({callback.headers["svix-id"] for callback in receiver.received}) == 1


def test_receipts_can_be_off_or_lost(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(sms={"receipts": "off"})
    _text(carriers, receiver.url + "/sms")
    assert carriers.control.counts()["receipts"]["scheduled"] == 0
    carriers.control.knobs(sms={"receipts": "on", "rate_receipt_lost": 1})
    _text(carriers, receiver.url + "/sms")
    receipts = carriers.control.counts()["receipts"]
    assert (receipts["scheduled"], receipts["lost"]) == (0, 2)


def test_receipts_can_come_twice_late_and_out_of_order(
    carriers: testing.Running, receiver: testing.Receiver
) -> None:
    carriers.control.knobs(sms={"rate_receipt_duplicate": 1})
    _text(carriers, receiver.url + "/sms")
    statuses = Counter(_verified(receiver, callback)["MessageStatus"] for callback in receiver.wait(4))
    assert statuses == {"sent": 2, "delivered": 2}
    receiver.received.clear()
    carriers.control.knobs(sms={"rate_receipt_duplicate": 0, "receipt_jitter_ms": 400})
    for number in range(10):
        _text(carriers, receiver.url + f"/sms?d={number}", to=f"+3361234560{number}")
    firsts: dict[str, str] = {}
    for callback in receiver.wait(20):
        firsts.setdefault(callback.path, _verified(receiver, callback)["MessageStatus"])
    assert set(firsts.values()) == {"sent", "delivered"}
    carriers.control.knobs(sms={"receipt_jitter_ms": 0, "rate_receipt_late": 1, "receipt_late_ms": 60_000})
    _text(carriers, receiver.url + "/sms")
    receipts = carriers.control.counts()["receipts"]
    assert (receipts["late"], receipts["pending"]) == (2, 2)


def test_an_inbound_message_is_signed_and_a_stop_is_kept(
    carriers: testing.Running, receiver: testing.Receiver
) -> None:
    answer = carriers.control.inbound(ALICE, OURS, "Stop ", opt_out_type="STOP")
    assert answer["status"] == 200
    form = _verified(receiver, receiver.received[0])
    assert (form["From"], form["To"], form["Body"], form["OptOutType"]) == (ALICE, OURS, "Stop ", "STOP")
    with pytest.raises(Exception, match="unsubscribed"):
        _text(carriers, receiver.url + "/sms")
    carriers.control.inbound(ALICE, OURS, "START")
    assert _text(carriers, receiver.url + "/sms")


def test_any_receipt_can_be_told_again(carriers: testing.Running, receiver: testing.Receiver) -> None:
    carriers.control.knobs(sms={"receipts": "off"}, email={"receipts": "off"})
    sid = _text(carriers, receiver.url + "/sms")
    assert carriers.control.receipt(sid, "failed", 30001)["status"] == 200
    form = _verified(receiver, receiver.received[0])
    assert (form["MessageStatus"], form["ErrorCode"]) == ("failed", "30001")
    with pytest.raises(CarriersError) as missing:
        carriers.control.receipt("SM0", "sent")
    assert missing.value.status == 404
