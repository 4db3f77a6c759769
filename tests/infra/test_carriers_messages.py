"""Twilio Messages, as the official SDK sees them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client

from infra.local.carriers import testing
from infra.local.carriers.segments import count_segments

ALICE, BOB = "+33612345678", "+33612345679"
OURS = "+15005550006"


@pytest.fixture(scope="module")
def process() -> Iterator[testing.Running]:
    with testing.running() as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running) -> testing.Running:
    process.control.preset("none")
    process.control.reset()
    return process


@pytest.fixture
def twilio(carriers: testing.Running) -> Client:
    return testing.twilio_client(carriers)


def test_sends_a_message_that_the_journal_knows(twilio: Client, carriers: testing.Running) -> None:
    callback = "http://127.0.0.1:9/receipt?d=00ff-1&a=2&m=x#rc=5&rp=all"
    message = twilio.messages.create(to=ALICE, from_=OURS, body="hé +&=", status_callback=callback)
    assert message.sid is not None
    assert (message.sid[:2], len(message.sid)) == ("SM", 34)
    assert (message.status, message.body, message.to, message.from_) == ("queued", "hé +&=", ALICE, OURS)
    [row] = carriers.control.journal()
    assert (row.provider_id, row.destination, row.reference, row.attempt) == (
        message.sid,
        ALICE,
        "00ff-1",
        "2",
    )
    assert row.body_length == len("hé +&=".encode())


def test_a_messaging_service_accepts_first_and_counts_segments_later(twilio: Client) -> None:
    message = twilio.messages.create(to=ALICE, messaging_service_sid="MG" + "0" * 32, body="x" * 200)
    assert (message.status, message.num_segments, message.from_) == ("accepted", "0", None)
    assert twilio.messages(str(message.sid)).fetch().num_segments == "2"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "", "from_": OURS, "body": "x"}, 21604),
        ({"to": "+15005550001", "from_": OURS, "body": "x"}, 21211),
        ({"to": "12", "from_": OURS, "body": "x"}, 21211),
        ({"to": "+15005550002", "from_": OURS, "body": "x"}, 21612),
        ({"to": "+15005550003", "from_": OURS, "body": "x"}, 21408),
        ({"to": "+15005550004", "from_": OURS, "body": "x"}, 21610),
        ({"to": "+15005550009", "from_": OURS, "body": "x"}, 21614),
        ({"to": ALICE, "body": "x"}, 21603),
        ({"to": ALICE, "from_": "+15005550001", "body": "x"}, 21212),
        ({"to": ALICE, "from_": "not a number!", "body": "x"}, 21212),
        ({"to": ALICE, "from_": "+15005550007", "body": "x"}, 21606),
        ({"to": ALICE, "from_": "+15005550008", "body": "x"}, 21611),
        ({"to": ALICE, "messaging_service_sid": "MGx", "body": "x"}, 21701),
        ({"to": ALICE, "from_": OURS}, 21602),
        ({"to": ALICE, "from_": OURS, "body": "x" * 1601}, 21617),
        ({"to": ALICE, "from_": OURS, "body": "x", "status_callback": "ftp://x"}, 21609),
        ({"to": ALICE, "from_": OURS, "body": "x", "validity_period": 0}, 20001),
    ],
)
def test_refuses_with_twilios_code_and_accepts_nothing(
    twilio: Client, carriers: testing.Running, fields: dict[str, Any], code: int
) -> None:
    with pytest.raises(TwilioRestException) as refused:
        twilio.messages.create(**fields)
    assert (refused.value.code, refused.value.status) == (code, 400)
    assert refused.value.msg
    counts = carriers.control.counts()["sms"]
    assert (counts["requests"], counts["accepted"], counts["refused"]) == (1, 0, {"400": 1})


def test_a_wrong_token_is_not_let_in(carriers: testing.Running) -> None:
    with pytest.raises(TwilioRestException) as refused:
        testing.twilio_client(carriers, "wrong").messages.create(to=ALICE, from_=OURS, body="x")
    assert (refused.value.code, refused.value.status) == (20003, 401)
    assert carriers.control.counts()["sms"]["requests"] == 0


def test_what_is_not_there_is_not_found(twilio: Client) -> None:
    with pytest.raises(TwilioRestException) as missing:
        twilio.messages("SM" + "0" * 32).fetch()
    assert (missing.value.code, missing.value.status) == (20404, 404)


def test_lists_by_number_and_date_page_by_page(twilio: Client) -> None:
    for number in range(7):
        twilio.messages.create(to=ALICE if number < 5 else BOB, from_=OURS, body=str(number))
    now = datetime.now(UTC)
    assert [each.body for each in twilio.messages.list(to=ALICE, page_size=2)] == list("43210")
    assert len(twilio.messages.list(to=ALICE, date_sent_after=now - timedelta(minutes=1))) == 5
    assert twilio.messages.list(to=ALICE, date_sent_after=now + timedelta(minutes=1)) == []
    assert twilio.messages.list(to=ALICE, date_sent_before=now - timedelta(minutes=1)) == []
    assert len(twilio.messages.list(date_sent=now)) == 7
    assert len(twilio.messages.list(from_=OURS, limit=3)) == 3
    assert twilio.messages.list(from_="+15005550000") == []


def test_a_list_may_lag_behind(twilio: Client, carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"list_lag_ms": 60_000})
    message = twilio.messages.create(to=ALICE, from_=OURS, body="x")
    assert twilio.messages.list(to=ALICE) == []
    assert twilio.messages(str(message.sid)).fetch().sid == message.sid


def test_the_status_goes_its_way(twilio: Client, carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"receipt_delay_ms": 0, "rate_undelivered": 1.0})
    sid = str(twilio.messages.create(to=ALICE, from_=OURS, body="x").sid)
    message = twilio.messages(sid).fetch()
    assert message.status == "undelivered"
    assert message.error_code in {30003, 30004, 30005, 30006, 30008}
    assert message.date_sent is not None


def test_redacts_a_body_and_deletes_only_what_is_final(twilio: Client, carriers: testing.Running) -> None:
    carriers.control.knobs(sms={"receipt_delay_ms": 60_000, "keep_body": True})
    slow = str(twilio.messages.create(to=ALICE, from_=OURS, body="secret").sid)
    with pytest.raises(TwilioRestException) as early:
        twilio.messages(slow).delete()
    assert (early.value.code, early.value.status) == (20009, 409)
    assert twilio.messages(slow).update(body="").body == ""
    with pytest.raises(TwilioRestException):
        twilio.messages(slow).update(body="other")
    carriers.control.knobs(sms={"receipt_delay_ms": 0})
    quick = str(twilio.messages.create(to=BOB, from_=OURS, body="secret").sid)
    assert twilio.messages(quick).delete()
    with pytest.raises(TwilioRestException):
        twilio.messages(quick).fetch()
    redacted, erased = carriers.control.journal()
    assert (redacted.body, redacted.destination, redacted.erased) == (None, ALICE, False)
    assert (erased.body, erased.destination, erased.erased) == (None, "", True)


@pytest.mark.parametrize(
    ("text", "segments"),
    [("", 1), ("a" * 160, 1), ("a" * 161, 2), ("€" * 80, 1), ("€" * 81, 2), ("ê" * 70, 1), ("ê" * 71, 2),
     ("😀" * 35, 1), ("😀" * 36, 2), ("a" * 459, 3), ("a" * 460, 4)],
)  # fmt: skip
def test_counts_segments(text: str, segments: int) -> None:
    assert count_segments(text) == segments
