"""Twilio's error codes, row by row: what each means to a retry loop."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.twilio_rest import FAILURE_CLASSES, FORM_TABLE, Callbacks, failure_class
from shared.values import FailureClass
from tests.shared.channels.support import channel_settings, exchange, failure_of, twilio_error
from tests.shared.channels.test_channel_sms import connect

EXPECTED = {
    "throttle": [10004, 14107, 20429, 21611, 22005, 30022, 30023],
    "transient": [20500, 20503, 30001, 30003, 30008, 30017, 30410],
    "permanent": [21211, 21214, 21217, 21612, 21614, 21635, 30004, 30005, 30006],
    "opted_out": [21610],
    "content": [12100, 21602, 21617, 30007, 30019, 30450],
    "configuration": [
        10001, 20003, 20404, 21205, 21212, 21219, 21603, 21606, 21608, 21609, 21701, 21703, 30002, 30024, 30032,
        30034, 30035,
    ],
    "destination": [13227, 21215, 21216, 21408],
}  # fmt: skip
ROWS = [(code, FailureClass(name)) for name, codes in EXPECTED.items() for code in codes]


@pytest.mark.parametrize(("code", "expected"), ROWS)
def test_a_code_has_its_class(code: int, expected: FailureClass) -> None:
    (outcome,) = exchange(connect, twilio_error(code)).outcomes
    assert failure_of(outcome) == (expected, str(code))


def test_the_table_has_these_rows_and_no_others() -> None:
    assert dict(ROWS) == FAILURE_CLASSES
    assert len(ROWS) == len(FAILURE_CLASSES)


@pytest.mark.parametrize("code", [0, 1, -1, 21000, 29999, 63000, 10**12])
def test_an_unknown_code_is_permanent_so_that_the_plan_goes_on(code: int) -> None:
    assert failure_class(code) is FailureClass.PERMANENT


@pytest.mark.parametrize("code", [0, 20500, 20503, 21211, 21610, 30003])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 507, 599])
def test_a_server_error_is_in_doubt_whatever_its_code(code: int, status: int) -> None:
    assert failure_class(code, status) is FailureClass.UNKNOWN


@pytest.mark.parametrize("code", [0, 20429, 14107, 21211, 21610])
def test_429_was_never_processed_whatever_its_code(code: int) -> None:
    assert failure_class(code, 429) is FailureClass.THROTTLE


def test_the_daily_cap_waits_for_tomorrow_unless_twilio_says_when() -> None:
    (outcome,) = exchange(connect, twilio_error(30023)).outcomes
    assert getattr(outcome, "retry_after_seconds", 0) == 86_400
    (outcome,) = exchange(connect, twilio_error(30023, Retry_After="60")).outcomes
    assert getattr(outcome, "retry_after_seconds", 0) == 60


@given(text=st.text())
def test_a_form_is_encoded_as_the_library_does(text: str) -> None:
    assert text.translate(FORM_TABLE) == quote_plus(text, errors="replace")


def test_the_encoded_callback_is_the_callback() -> None:
    callbacks = Callbacks(channel_settings("http://127.0.0.1:1"), "message")
    plain, encoded = callbacks.url("0" * 32 + "-17", 3), callbacks.encoded("0" * 32 + "-17", 3)
    assert encoded == quote_plus(plain)
