"""Twilio Calls: placed by the official SDK, answered by simulated people, told by signed callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator
from twilio.rest import Client
from twilio.twiml.voice_response import Gather, VoiceResponse

from infra.local.carriers import testing

ALICE, OURS = "+33612345678", "+15005550006"
EVENTS = ["initiated", "ringing", "answered", "completed"]


@pytest.fixture(scope="module")
def process() -> Iterator[testing.Running]:
    with testing.running() as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running) -> testing.Running:
    process.control.preset("none")
    process.control.knobs(voice={"receipt_delay_ms": 30})
    process.control.reset()
    return process


@pytest.fixture
def twilio(carriers: testing.Running) -> Client:
    return testing.twilio_client(carriers)


@pytest.fixture
def receiver() -> Iterator[testing.Receiver]:
    opened = testing.Receiver()
    opened.answer = b"<Response><Say>Thank you</Say></Response>"
    yield opened
    opened.close()


def _question(action: str) -> str:
    response = VoiceResponse()
    gather = Gather(input="dtmf", num_digits=1, action=action, action_on_empty_result=True)
    gather.say("Press 1 if you are safe.")
    response.append(gather)
    return str(response)


def _place(twilio: Client, receiver: testing.Receiver, **more: Any) -> str:
    call = twilio.calls.create(
        to=ALICE, from_=OURS, twiml=_question(receiver.url + "/gather?d=00ff-7&a=1"),
        status_callback=receiver.url + "/call?d=00ff-7&a=1#rc=5&rp=all", status_callback_event=EVENTS, **more,
    )  # fmt: skip
    return str(call.sid)


def _told(receiver: testing.Receiver, count: int) -> list[tuple[str, dict[str, str]]]:
    """Path and form of each callback, signatures checked."""
    told = []
    for callback in receiver.wait(count):
        form = dict(parse_qsl(callback.body.decode(), keep_blank_values=True))
        validator = RequestValidator(testing.AUTH_TOKEN)
        assert validator.validate(receiver.url + callback.path, form, callback.headers["x-twilio-signature"])
        told.append((callback.path, form))
    return told


def test_a_person_picks_up_and_presses(
    twilio: Client, carriers: testing.Running, receiver: testing.Receiver
) -> None:
    sid = _place(twilio, receiver, machine_detection="DetectMessageEnd")
    told = _told(receiver, 5)
    statuses = [form["CallStatus"] for path, form in told if path.startswith("/call")]
    assert statuses == ["initiated", "ringing", "in-progress", "completed"]
    numbers = [form["SequenceNumber"] for path, form in told if path.startswith("/call")]
    assert numbers == ["0", "1", "2", "3"]
    [gathered] = [form for path, form in told if path.startswith("/gather")]
    assert (gathered["Digits"], gathered["CallSid"], gathered["AnsweredBy"]) == ("1", sid, "human")
    last = told[-1][1]
    assert (last["CallDuration"], last["AnsweredBy"]) == ("12", "human")
    call = twilio.calls(sid).fetch()
    assert (call.status, call.duration, call.answered_by) == ("completed", "12", "human")
    [row] = carriers.control.journal("voice")
    assert (row.provider_id, row.reference, row.attempt) == (sid, "00ff-7", "1")
    assert carriers.control.wait_receipts(5)["bad_twiml"] == 0


@pytest.mark.parametrize(
    ("knobs", "statuses", "digits"),
    [
        ({"rate_busy": 1}, ["initiated", "ringing", "busy"], []),
        ({"rate_no_answer": 1}, ["initiated", "ringing", "no-answer"], []),
        ({"rate_machine": 1}, ["initiated", "ringing", "in-progress", "completed"], [""]),
        ({"rate_press": 0}, ["initiated", "ringing", "in-progress", "completed"], [""]),
        ({"press_digit": 9}, ["initiated", "ringing", "in-progress", "completed"], ["9"]),
    ],
)
def test_people_do_as_the_knobs_say(
    twilio: Client,
    carriers: testing.Running,
    receiver: testing.Receiver,
    knobs: dict[str, float],
    statuses: list[str],
    digits: list[str],
) -> None:
    carriers.control.knobs(voice=knobs)
    _place(twilio, receiver, machine_detection="DetectMessageEnd")
    told = _told(receiver, len(statuses) + len(digits))
    assert [form["CallStatus"] for path, form in told if path.startswith("/call")] == statuses
    assert [form["Digits"] for path, form in told if path.startswith("/gather")] == digits
    expected = "machine_end_beep" if "rate_machine" in knobs else "human"
    assert told[-1][1].get("AnsweredBy") == (expected if digits else None)


def test_only_the_last_status_is_told_unless_more_is_asked(
    twilio: Client, carriers: testing.Running, receiver: testing.Receiver
) -> None:
    twiml = "<Response><Say>x</Say></Response>"
    twilio.calls.create(to=ALICE, from_=OURS, twiml=twiml, status_callback=receiver.url + "/call")
    carriers.control.wait_receipts(5)
    assert [form["CallStatus"] for _, form in _told(receiver, 1)] == ["completed"]


def test_asynchronous_machine_detection_has_its_own_callback(
    twilio: Client, carriers: testing.Running, receiver: testing.Receiver
) -> None:
    carriers.control.knobs(voice={"rate_machine": 1})
    twilio.calls.create(
        to=ALICE, from_=OURS, twiml="<Response/>", machine_detection="DetectMessageEnd", async_amd="true",
        async_amd_status_callback=receiver.url + "/machine",
    )  # fmt: skip
    assert [form["AnsweredBy"] for _, form in _told(receiver, 1)] == ["machine_end_beep"]


def test_a_reply_that_is_no_twiml_is_counted(
    twilio: Client, carriers: testing.Running, receiver: testing.Receiver
) -> None:
    receiver.answer = b'{"ok": true}'
    _place(twilio, receiver)
    receiver.wait(5)
    assert carriers.control.wait_receipts(5)["bad_twiml"] == 1


def test_a_key_can_be_pressed_by_hand(
    twilio: Client, carriers: testing.Running, receiver: testing.Receiver
) -> None:
    carriers.control.knobs(voice={"rate_no_answer": 1})
    _place(twilio, receiver)
    carriers.control.wait_receipts(5)
    assert carriers.control.answer(ALICE, "2")["body"] == "<Response><Say>Thank you</Say></Response>"
    assert parse_qs(receiver.received[-1].body.decode())["Digits"] == ["2"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "", "from_": OURS, "twiml": "<Response/>"}, 21201),
        ({"to": ALICE, "from_": "", "twiml": "<Response/>"}, 21213),
        ({"to": "12", "from_": OURS, "twiml": "<Response/>"}, 21211),
        ({"to": "+15005550001", "from_": OURS, "twiml": "<Response/>"}, 21217),
        ({"to": "+15005550002", "from_": OURS, "twiml": "<Response/>"}, 21214),
        ({"to": "+15005550003", "from_": OURS, "twiml": "<Response/>"}, 21215),
        ({"to": "+15005550004", "from_": OURS, "twiml": "<Response/>"}, 21216),
        ({"to": ALICE, "from_": "+15005550001", "twiml": "<Response/>"}, 21212),
        ({"to": ALICE, "from_": OURS}, 21205),
        ({"to": ALICE, "from_": OURS, "twiml": "<Response><Say></Response>"}, 12100),
        ({"to": ALICE, "from_": OURS, "twiml": "<Other/>"}, 12100),
        ({"to": ALICE, "from_": OURS, "twiml": "<!DOCTYPE a [<!ENTITY b 'c'>]><Response/>"}, 12100),
        ({"to": ALICE, "from_": OURS, "twiml": "<Response>" + "x" * 4000 + "</Response>"}, 20001),
        ({"to": ALICE, "from_": OURS, "twiml": "<Response/>", "status_callback": "ftp://x"}, 21609),
    ],
)
def test_refuses_with_twilios_code(twilio: Client, fields: dict[str, Any], code: int) -> None:
    with pytest.raises(TwilioRestException) as refused:
        twilio.calls.create(**fields)
    assert (refused.value.code, refused.value.status) == (code, 400)


def test_lists_and_deletes_calls(twilio: Client, carriers: testing.Running) -> None:
    carriers.control.knobs(voice={"receipt_delay_ms": 0})
    sid = str(twilio.calls.create(to=ALICE, from_=OURS, twiml="<Response/>").sid)
    assert [call.sid for call in twilio.calls.list(to=ALICE, status="completed")] == [sid]
    assert twilio.calls.list(to=ALICE, status="busy") == []
    assert twilio.calls(sid).delete()
    assert twilio.calls.list(to=ALICE) == []
