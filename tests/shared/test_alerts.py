"""Alerts: the shape of what is asked, and what is passed on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from shared import alerts
from shared.clock import FrozenClock
from shared.database import Database
from shared.settings import DatabaseSettings

NOW = FrozenClock(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))
ORGANISATION = "0198c0de-0000-4000-8000-000000000001"
TEMPLATE = "0198c0de-0000-4000-8000-000000000002"
GROUP = "0198c0de-0000-4000-8000-000000000003"
ALERT = "0198c0de-0000-7000-8000-000000000004"
BODY = {
    "organisation_id": ORGANISATION,
    "alert_id": ALERT,
    "title": "Crue",
    "severity": "urgent",
    "channels": ["sms", "email"],
    "template_id": TEMPLATE,
    "group_ids": [GROUP],
}


def _parse(**changes: Any) -> alerts.SendAlert:
    body = {name: value for name, value in (BODY | changes).items() if value is not ...}
    return alerts.SendAlert.model_validate_json(json.dumps(body), strict=True)


class Recorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def call(self, name: str, arguments: Any, headers: Any) -> Any:
        self.calls.append((name, arguments))
        return {"planned": 1}


def _db(transport: Recorder) -> Database:
    return Database(transport, DatabaseSettings("https://x.example", "k", 1), "token")


def test_a_send_passes_on_exactly_what_was_asked() -> None:
    transport = Recorder()
    assert alerts.send(_db(transport), _parse()) == {"planned": 1}
    expected = {name: value for name, value in BODY.items() if name != "organisation_id"}
    more: dict[str, Any] = {"contact_ids": [], "variables": {}}
    assert transport.calls == [
        ("send_alert", {"p_organisation_id": ORGANISATION, "p_alert": expected | more})
    ]


def test_an_id_must_be_given() -> None:
    """An id made here would differ at every repeat, and a repeat would send twice."""
    with pytest.raises(ValidationError, match="alert_id"):
        _parse(alert_id=...)


def test_quote_and_report_have_their_own_names() -> None:
    transport = Recorder()
    alerts.quote(_db(transport), _parse())
    alerts.report(_db(transport), UUID(ORGANISATION), UUID(ALERT))
    assert [name for name, _ in transport.calls] == ["quote_alert", "alert_report"]
    assert transport.calls[1][1] == {"p_organisation_id": ORGANISATION, "p_alert_id": ALERT}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"organisation_id": ...}, "organisation_id"),
        ({"organisation_id": "x"}, "organisation_id"),
        ({"alert_id": "0198c0de-0000-4000-8000-000000000004"}, "alert_id"),
        ({"title": ""}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"title": "a\r\nBcc: b"}, "title"),
        ({"title": "a\u0000"}, "title"),
        ({"title": 7}, "title"),
        ({"severity": "high"}, "severity"),
        ({"channels": []}, "channels"),
        ({"channels": ["sms", "sms"]}, "channels"),
        ({"channels": ["fax"]}, "channels"),
        ({"channels": "sms"}, "channels"),
        ({"template_id": None}, "template_id"),
        ({"group_ids": [GROUP, GROUP]}, "group_ids"),
        ({"group_ids": [f"0198c0de-0000-4000-8000-{n:012d}" for n in range(101)]}, "group_ids"),
        ({"contact_ids": [f"0198c0de-0000-4000-8000-{n:012d}" for n in range(1001)]}, "contact_ids"),
        ({"group_ids": []}, ""),
        ({"variables": {"Place": "x"}}, "variables"),
        ({"variables": {"place": 7}}, "variables"),
        ({"variables": {"place": "x" * 1001}}, "variables"),
        ({"variables": {"place": "a\u0000"}}, "variables"),
        ({"variables": {f"v{n}": "x" for n in range(101)}}, "variables"),
        ({"expires_at": "2026-11-24T00:00:00"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"state": "approved"}, "state"),
        ({"created_by": ORGANISATION}, "created_by"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_place(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _parse(**changes)
    assert str(next(iter(caught.value.errors()[0]["loc"]), "")) == place


def test_numbers_are_no_instants() -> None:
    with pytest.raises(ValidationError):
        _parse(expires_at=[])
