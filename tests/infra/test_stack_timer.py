"""The timer starts a dispatcher when there is work and survives every error of what it calls."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
import urllib3

from infra.local.timer import CallFailed, Timer, has_work


@pytest.fixture
def timer_of_nothing() -> Timer:
    return Timer("http://127.0.0.1:1", "secret", "http://127.0.0.1:1", "secret")


@pytest.mark.parametrize(
    ("backlog", "expected"),
    [
        ({"due": ["sms"], "dispatchers": 0}, True),
        ({"due": ["sms", "email"], "dispatchers": 1}, True),
        ({"due": ["sms"], "dispatchers": 2}, False),
        ({"due": [], "dispatchers": 0, "next_seconds": 3}, False),
        (None, False),
    ],
)
def test_dispatcher_is_wanted_when_something_is_due_and_too_few_run(backlog: object, expected: bool) -> None:
    assert has_work(backlog) is expected


def test_error_is_told_once_until_it_changes(
    timer_of_nothing: Timer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "timer")

    def fail(words: str) -> None:
        raise CallFailed(words)

    for words in ("503", "503", "404"):
        timer_of_nothing.attempt("sweep", lambda words=words: fail(words))
    timer_of_nothing.attempt("sweep", lambda: None)
    timer_of_nothing.attempt("sweep", lambda: None)
    assert [record.getMessage() for record in caplog.records] == [
        "sweep failed: 503",
        "sweep failed: 404",
        "sweep works again",
    ]


def test_nothing_to_talk_to_is_survived(timer_of_nothing: Timer) -> None:
    with ThreadPoolExecutor(1) as executor:
        timer_of_nothing.attempt("dispatch", lambda: timer_of_nothing.dispatch(executor))
        timer_of_nothing.attempt("sweep", timer_of_nothing.sweep)
    assert set(timer_of_nothing.told) == {"dispatch", "sweep"}
    with pytest.raises(urllib3.exceptions.HTTPError):
        timer_of_nothing.sweep()
