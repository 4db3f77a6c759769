"""Parity: our requests beside those that the official SDKs make for the same message, field by field."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import resend
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client

from shared.channels import email, sms, voice
from tests.shared.channels.support import (
    ACCOUNT,
    ALICE,
    NOW,
    SERVICE,
    Connect,
    channel_settings,
    exchange,
    frozen,
    json_answer,
    looked_up,
    message,
)

CREATED = json_answer(201, {"sid": "SM" + "0" * 32})
QUEUED = json_answer(201, {"sid": "CA" + "0" * 32})
SETTINGS = channel_settings("http://127.0.0.1:1")
Pairs = list[tuple[str, str]]


class Recorder(HttpClient):  # type: ignore[misc]
    """Prepares the request that the SDK would send, and keeps it."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger(__name__), is_async=False)
        self.made: list[requests.PreparedRequest] = []

    def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        auth: Any = None,
        **_: Any,
    ) -> Response:
        self.made.append(requests.Request(method, url, headers, None, data, params, auth).prepare())
        if method == "POST":
            return Response(201, '{"sid": "x"}')
        return Response(200, '{"rows": [], "page": 0, "page_size": 50, "uri": "/"}')


def recorded() -> tuple[Client, Recorder]:
    recorder = Recorder()
    return Client(ACCOUNT, SETTINGS.twilio_auth_token, http_client=recorder), recorder


def form_of(body: object) -> Pairs:
    text = body.decode() if isinstance(body, bytes) else str(body)
    return sorted(parse_qsl(text, keep_blank_values=True))


def check_same(mine: Mapping[str, str], target: str, theirs: requests.PreparedRequest) -> None:
    parts = urlsplit(str(theirs.url))
    assert parts.netloc == "api.twilio.com"
    assert urlsplit(target).path == parts.path
    assert sorted(parse_qsl(urlsplit(target).query)) == sorted(parse_qsl(parts.query))
    for name in ("authorization", "content-type"):
        if theirs.headers.get(name):
            assert mine[name] == theirs.headers[name]


@pytest.mark.parametrize("body", [message().body, "a+b&c=d%20\n\té🌊", "x" * 1600])
def test_a_text_is_what_the_twilio_sdk_sends(body: str) -> None:
    (mine,) = exchange(
        lambda outbound, settings: sms.connect(outbound, settings, frozen()),
        CREATED,
        [message(body=body, expires_at=NOW.timestamp() + 600)],
    ).requests
    client, recorder = recorded()
    client.messages.create(
        to=ALICE,
        body=body,
        messaging_service_sid=SERVICE,
        validity_period=600,
        status_callback=dict(mine.form)["StatusCallback"],
    )
    (theirs,) = recorder.made
    check_same(mine.headers, mine.target, theirs)
    assert sorted(mine.form) == form_of(theirs.body)


@pytest.mark.parametrize("acknowledge", [True, False])
def test_a_call_is_what_the_twilio_sdk_sends(acknowledge: bool) -> None:
    (mine,) = exchange(voice.connect, QUEUED, [message(acknowledge=acknowledge)]).requests
    form = dict(mine.form)
    client, recorder = recorded()
    client.calls.create(
        to=ALICE,
        from_=SETTINGS.twilio_voice_from,
        twiml=form["Twiml"],
        status_callback=form["StatusCallback"],
        status_callback_event=["initiated", "ringing", "answered", "completed"],
        machine_detection="DetectMessageEnd",
        async_amd="true",
    )
    (theirs,) = recorder.made
    check_same(mine.headers, mine.target, theirs)
    assert sorted(mine.form) == form_of(theirs.body)


@pytest.mark.parametrize(("resource", "connect"), [("messages", sms.connect), ("calls", voice.connect)])
def test_a_list_is_asked_for_as_the_twilio_sdk_does(resource: str, connect: Connect) -> None:
    _, (mine, _) = looked_up(connect, NOW.timestamp(), json_answer(200, {resource: []}))
    client, recorder = recorded()
    if resource == "messages":
        client.messages.list(to=ALICE, date_sent_after=NOW.date(), page_size=100)
    else:
        client.calls.list(to=ALICE, start_time_after=NOW.date(), page_size=100)
    check_same(mine.headers, mine.target, recorder.made[0])


class ResendRecorder(resend.HTTPClient):
    """Keeps what the SDK would send."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, Mapping[str, str], object]] = []

    def request(  # type: ignore[override]
        self, method: str, url: str, headers: Mapping[str, str], json: object = None, **_: Any
    ) -> tuple[bytes, int, Mapping[str, str]]:
        self.made.append((method, url, headers, json))
        return b'{"data": []}', 200, {"content-type": "application/json"}


def test_a_batch_is_what_the_resend_sdk_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [message(1, "alice@example.com", html="<p>Évacuez</p>"), message(2, "bob@example.com")]
    answer = json_answer(200, {"data": [{"id": "1"}, {"id": "2"}]})
    (mine,) = exchange(email.connect, answer, batch, key="chunk-7").requests
    recorder = ResendRecorder()
    monkeypatch.setattr(resend, "default_http_client", recorder)
    monkeypatch.setattr(resend, "api_key", SETTINGS.resend_api_key)
    parameters: list[resend.Emails.SendParams] = []
    for number, to in ((1, "alice@example.com"), (2, "bob@example.com")):
        one: resend.Emails.SendParams = {
            "from": SETTINGS.resend_from,
            "to": [to],
            "subject": "Crue",
            "text": message().body,
            "tags": [
                {"name": "delivery", "value": message(number).delivery_id},
                {"name": "attempt", "value": "1"},
            ],
        }
        if number == 1:
            one["html"] = "<p>Évacuez</p>"
        parameters.append(one)
    resend.Batch.send(parameters, {"idempotency_key": "chunk-7", "batch_validation": "permissive"})
    ((method, url, headers, document),) = recorder.made
    assert (mine.method, mine.target) == (method.upper(), urlsplit(url).path)
    assert json.loads(mine.body) == document
    for name, value in headers.items():
        if name != "User-Agent":
            assert mine.headers[name.lower()] == value


def test_the_credentials_are_the_accounts() -> None:
    (mine,) = exchange(sms.connect, CREATED).requests
    encoded = mine.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded).decode() == f"{ACCOUNT}:{SETTINGS.twilio_auth_token}"
