"""Log lines are JSON, carry the request id and drop what is not allowed by name."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.clock import FrozenClock
from shared.log import Log, bound_request_id, request_id

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def _lines(*calls: tuple[str, dict[str, Any]], error: BaseException | None = None) -> list[dict[str, Any]]:
    stream = io.StringIO()
    log = Log(stream, now=FrozenClock(NOW))
    for event, fields in calls:
        log.info(event, **fields) if error is None else log.error(event, error, **fields)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    (line,) = _lines(("request", {"status": 204, "route": "POST /quote", "duration_ms": 1.5}))
    assert line == {
        "time": "2026-11-23T12:00:00.000+00:00",
        "severity": "info",
        "event": "request",
        "status": 204,
        "route": "POST /quote",
        "duration_ms": 1.5,
    }


def test_personal_data_under_an_unknown_key_is_dropped() -> None:
    (line,) = _lines(
        ("sent", {"to": "+33612345678", "body": "secret", "email": "a@example.com", "channel": "sms"})
    )
    assert line["channel"] == "sms"
    assert line["dropped_keys"] == 3
    for personal in ("+33612345678", "secret", "a@example.com"):
        assert personal not in json.dumps(line)


def test_values_are_scalars_short_texts_or_counts() -> None:
    alert_id = UUID(int=7)
    (line,) = _lines(
        (
            "x",
            {
                "alert_id": alert_id,
                "reason": "y" * 500,
                "tally": {"sent": 2},
                "state": ["+33612345678"],
                "kind": None,
            },
        )
    )
    assert line["alert_id"] == str(alert_id)
    assert len(line["reason"]) == 120
    assert line["tally"] == {"sent": 2}
    assert line["state"] == "list"
    assert line["kind"] is None


def test_an_exception_is_its_class_its_cause_and_its_place_never_its_words() -> None:
    try:
        try:
            raise KeyError("a@example.com")
        except KeyError as cause:
            raise ValueError("Key (email)=(a@example.com) already exists") from cause
    except ValueError as caught:
        (line,) = _lines(("failed", {}), error=caught)
    assert line["error"] == "ValueError"
    assert line["cause"] == "KeyError"
    assert "test_log.py:" in line["at"][0]
    assert "example.com" not in json.dumps(line)


def test_a_database_exception_names_its_constraint() -> None:
    class Diagnosis:
        constraint_name = "contacts_organisation_id_external_id_key"

    class UniqueViolation(Exception):
        diag = Diagnosis()

    (line,) = _lines(("failed", {}), error=UniqueViolation("Key (value)=(+33612345678)"))
    assert line["constraint"] == "contacts_organisation_id_external_id_key"
    assert "+336" not in json.dumps(line)


def test_the_request_id_is_bound_to_a_block() -> None:
    with bound_request_id("abc"):
        (inside,) = _lines(("x", {}))
        with bound_request_id("inner"):
            assert request_id.get() == "inner"
        assert request_id.get() == "abc"
    (outside,) = _lines(("x", {}))
    assert inside["request_id"] == "abc"
    assert "request_id" not in outside


def test_a_line_end_in_a_value_does_not_make_a_second_line() -> None:
    assert len(_lines(("x", {"reason": 'a\n{"event":"forged"}'}))) == 1
