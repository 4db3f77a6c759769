"""Calls: what is said, in which voice, and the key that is asked for."""

from __future__ import annotations

from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.channels import Accepted, Message, voice
from shared.outbound import Outbound
from shared.signatures import LinkSigner
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.channels.support import (
    ACCOUNT,
    ALERT,
    ALICE,
    FUNCTIONS_URL,
    NOW,
    channel_settings,
    exchange,
    failure_of,
    json_answer,
    looked_up,
    message,
    twilio_error,
)

SID = "CA" + "0a" * 16
QUEUED = json_answer(201, {"sid": SID, "status": "queued"})


def script_of(spoken: Message) -> ElementTree.Element:
    """The TwiML that is posted for a message, parsed."""
    (request,) = exchange(voice.connect, QUEUED, [spoken]).requests
    return ElementTree.fromstring(dict(request.form)["Twiml"])


def test_a_call_is_posted_as_twilio_wants_it() -> None:
    made = exchange(voice.connect, QUEUED)
    (request,) = made.requests
    assert (request.method, request.target) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json")
    form = dict(request.form)
    assert (form["From"], form["To"]) == ("+15005550006", ALICE)
    assert (form["MachineDetection"], form["AsyncAmd"]) == ("DetectMessageEnd", "true")
    events = [value for name, value in request.form if name == "StatusCallbackEvent"]
    assert events == ["initiated", "ringing", "answered", "completed"]
    assert form["StatusCallback"].startswith(
        f"{FUNCTIONS_URL}/delivery-webhook/twilio/call?d={ALERT}-1&a=1&m="
    )
    assert made.outcomes == [Accepted(SID)]


def test_a_message_is_said_twice_in_its_language() -> None:
    response = script_of(message())
    (say,) = response
    assert (say.tag, say.attrib, say.text) == ("Say", {"language": "fr-FR", "loop": "2"}, message().body)


def test_an_acknowledged_message_is_gathered_in_one_round_trip() -> None:
    (gather,) = script_of(message(17, attempt=2, acknowledge=True))
    attributes = dict(gather.attrib)
    action = attributes.pop("action")
    assert gather.tag == "Gather"
    assert attributes == {"input": "dtmf", "numDigits": "1", "timeout": "8", "actionOnEmptyResult": "true"}
    (say,) = gather
    assert say.text == f"{message().body}\nAppuyez sur 1 pour confirmer."
    parts = urlsplit(action)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    assert action.startswith(f"{FUNCTIONS_URL}/delivery-webhook/twilio/gather?")
    signer = LinkSigner("alice-keeps-this-secret-very-well-1")
    assert signer.verify_link(query["m"], "delivery", f"{ALERT}-17", 2)
    assert query["l"] == "fr", "the reply to the key press is in the language of the message"


@pytest.mark.parametrize(
    ("language", "locale", "word"),
    [
        ("fr", "fr-FR", "Appuyez"), ("fr-FR", "fr-FR", "Appuyez"), ("fr-BE", "fr-FR", "Appuyez"),
        ("fr-CA", "fr-CA", "Appuyez"), ("FR_ca", "fr-CA", "Appuyez"), ("en", "en-US", "Press"),
        ("en-GB", "en-GB", "Press"), ("en-gb", "en-GB", "Press"), ("de", "de-DE", "Drücken"), ("de-AT", "de-DE", "Dr"),
        ("es", "es-ES", "Pulse"), ("es-MX", "es-MX", "Pulse"), ("nl", "nl-NL", "Druk"), ("it", "it-IT", "Prema"),
        ("pt-BR", "pt-BR", "Prima"), ("xx", "en-US", "Press"), ("", "en-US", "Press"), ("zh-Hant-TW", "en-US", "Press"),
    ],
)  # fmt: skip
def test_the_voice_and_the_prompt_follow_the_language(language: str, locale: str, word: str) -> None:
    found, prompt = voice.speech_of(language)
    assert found == locale
    assert prompt.startswith(word)
    assert "1" in prompt


@pytest.mark.parametrize(
    "body",
    [
        "</Say><Dial>+15005550001</Dial><Say>", "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>&a;",
        "]]><Hangup/>", "<!-- -->", '"><Redirect>https://evil.example.com</Redirect>', "&#0; &amp; <![CDATA[x]]>",
    ],
)  # fmt: skip
def test_a_message_cannot_give_orders(body: str) -> None:
    (say,) = script_of(message(body=body))
    assert (say.tag, len(say), say.text) == ("Say", 0, body)


def test_what_xml_cannot_hold_is_taken_out() -> None:
    (say,) = script_of(message(body="a\x00\x08\x0b\x1f\ufffe\uffffb\tc\nd"))
    assert say.text == "ab\tc\nd"


@settings(max_examples=30, deadline=None)
@given(body=st.text(min_size=1, max_size=200), acknowledge=st.booleans())
def test_any_text_makes_good_twiml_or_nothing(body: str, acknowledge: bool) -> None:
    made = exchange(voice.connect, QUEUED, [message(body=body, acknowledge=acknowledge)])
    if not made.requests:
        assert failure_of(made.outcomes[0])[0] is FailureClass.CONTENT
        return
    tags = [element.tag for element in ElementTree.fromstring(dict(made.requests[0].form)["Twiml"]).iter()]
    assert tags == (["Response", "Gather", "Say"] if acknowledge else ["Response", "Say"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "body_empty"),
        ("\x00\x01 ", "body_empty"),
        ("x" * 4000, "speech_too_long"),
        ("&" * 900, "speech_too_long"),
    ],
)
def test_what_cannot_be_said_is_not_sent(body: str, code: str) -> None:
    made = exchange(voice.connect, QUEUED, [message(body=body)])
    assert failure_of(made.outcomes[0]) == (FailureClass.CONTENT, code)
    assert made.requests == []


def test_the_longest_template_fits_also_with_a_key_press() -> None:
    made = exchange(voice.connect, QUEUED, [message(body="é" * 2500, acknowledge=True)])
    assert made.outcomes == [Accepted(SID)]
    assert len(dict(made.requests[0].form)["Twiml"]) <= 4000


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (twilio_error(13227), (FailureClass.DESTINATION, "13227")),
        (twilio_error(10004), (FailureClass.THROTTLE, "10004")),
        (twilio_error(20503, 503), (FailureClass.UNKNOWN, "20503")),
        (json_answer(201, {"sid": "SM" + "0" * 32}), (FailureClass.UNKNOWN, "answer_broken")),
        (raw_server.close_after_reading, (FailureClass.UNKNOWN, "connection_lost")),
    ],
)
def test_failures_are_those_of_texts(
    behaviour: raw_server.Behaviour | bytes, expected: tuple[FailureClass, str]
) -> None:
    made = exchange(voice.connect, behaviour)
    assert failure_of(made.outcomes[0]) == expected


def row(**changes: Any) -> dict[str, Any]:
    created = format_datetime(NOW)
    return {
        "sid": SID, "to": ALICE, "from": "+15005550006", "direction": "outbound-api", "date_created": created,
        "start_time": None, "status": "queued", **changes,
    }  # fmt: skip


def test_a_call_is_found_again_by_number_and_sender() -> None:
    page = json_answer(200, {"calls": [row()]})
    found, requests = looked_up(voice.connect, NOW.timestamp(), page)
    assert found == Accepted(SID)
    assert dict(requests[0].query) == {"To": ALICE, "PageSize": "100", "StartTime>": "2026-11-23T00:00:00Z"}


@pytest.mark.parametrize(
    "near", [row(direction="inbound"), row(**{"from": "+15005550001"}), row(date_created="")]
)
def test_another_call_is_not_ours(near: dict[str, Any]) -> None:
    assert looked_up(voice.connect, NOW.timestamp(), json_answer(200, {"calls": [near]}))[0] is None


def test_the_script_needs_no_connection() -> None:
    adapter = voice.Voice(Outbound(), channel_settings("http://127.0.0.1:1"))
    assert adapter.script(message()).startswith('<?xml version="1.0" encoding="UTF-8"?><Response>')
