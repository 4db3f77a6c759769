"""Imports: rows made uniform, refused one by one, stored in chunks."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.contacts import CHUNK_ROWS, MOST_REPORTED, RowError, import_rows, normalise
from shared.database import Database
from shared.settings import DatabaseSettings

ORGANISATION = uuid4()
GROUP = "0198c0de-0000-7000-8000-00000000000A"


class Fake:
    """A transport that accepts every row but those named "bad"."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def call(self, name: str, arguments: Any, headers: Any) -> Any:
        assert name == "import_contacts"
        self.calls.append(arguments)
        rows = arguments["p_contacts"]
        refused = [
            {"row": place, "column": "name", "reason": "is bad"}
            for place, row in enumerate(rows, start=1)
            if row["name"] == "bad"
        ]
        return {"created": len(rows) - len(refused), "updated": 0, "refused": refused}


def _db(transport: Fake) -> Database:
    return Database(transport, DatabaseSettings("https://x.example", "k", 1), "token")


def test_a_row_becomes_uniform() -> None:
    row = {
        "external_id": " p-1 ",
        "name": "Ame\u0301lie",
        "language": "FR_ca",
        "time_zone": "Europe/Paris",
        "tags": ["north", "north", "night"],
        "group_ids": [GROUP],
        "attributes": {"floor": 3, "badge": "A1", "fit": True},
        "addresses": [
            {"kind": "phone", "value": "06 12 34 56 78"},
            {"kind": "phone", "value": "+33612345678"},
            {"kind": "email", "value": "Amelie@Example.com", "position": 7},
        ],
    }
    assert normalise(row, country="FR") == {
        "external_id": "p-1",
        "name": "Amélie",
        "language": "fr-CA",
        "time_zone": "Europe/Paris",
        "tags": ["north", "night"],
        "group_ids": [GROUP.lower()],
        "attributes": {"floor": 3, "badge": "A1", "fit": True},
        "addresses": [
            {"kind": "phone", "value": "+33612345678", "position": 1},
            {"kind": "email", "value": "amelie@example.com", "position": 7},
        ],
    }


@pytest.mark.parametrize(
    ("changes", "column"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"external_id": "a\nb"}, "external_id"),
        ({"language": "français"}, "language"),
        ({"time_zone": "Atlantis"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"tags": "north"}, "tags"),
        ({"tags": ["a"] * 51}, "tags"),
        ({"tags": ["a\x1b"]}, "tags"),
        ({"group_ids": ["1"]}, "group_ids"),
        ({"attributes": [1]}, "attributes"),
        ({"attributes": {"Floor": 1}}, "attributes"),
        ({"attributes": {"floor": None}}, "attributes"),
        ({"attributes": {"floor": "a\x00"}}, "attributes"),
        ({"addresses": "0612345678"}, "addresses"),
        ({"addresses": [{"kind": "fax", "value": "1"}]}, "addresses"),
        ({"addresses": [{"kind": "phone", "value": "12"}]}, "addresses"),
        ({"addresses": [{"kind": "phone", "value": 612345678}]}, "addresses"),
        ({"addresses": [{"kind": "email", "value": "a@example.com", "position": 0}]}, "addresses"),
        ({"addresses": [{"kind": "email", "value": "a@example.com", "position": True}]}, "addresses"),
        ({"addresses": [{"kind": "phone", "value": "0612345678"}] * 21}, "addresses"),
        ({"birth_date": "2012-01-01"}, "birth_date"),
    ],
)
def test_a_bad_row_names_its_column_and_never_its_value(changes: dict[str, Any], column: str) -> None:
    with pytest.raises(RowError) as caught:
        normalise({"name": "Amélie"} | changes, country="FR")
    assert caught.value.column == column
    for value in changes.values():
        assert not isinstance(value, str) or len(value) < 3 or value not in str(caught.value)


def test_good_rows_are_stored_and_bad_ones_reported_by_their_place() -> None:
    transport = Fake()
    rows = [{"name": "a"}, {"name": ""}, {"name": "bad"}, {"name": "b"}]
    report = import_rows(_db(transport), ORGANISATION, rows)
    assert (report.created, report.updated, report.refused_count) == (2, 0, 2)
    assert report.refused == [
        {"row": 2, "column": "name", "reason": "is missing"},
        {"row": 3, "column": "name", "reason": "is bad"},
    ]
    assert UUID(transport.calls[0]["p_organisation_id"]) == ORGANISATION


def test_an_import_goes_in_chunks_and_its_report_stays_small() -> None:
    transport = Fake()
    rows = ({"name": "bad" if place % 2 else "good"} for place in range(CHUNK_ROWS * 2 + 10))
    report = import_rows(_db(transport), ORGANISATION, rows)
    assert [len(call["p_contacts"]) for call in transport.calls] == [CHUNK_ROWS, CHUNK_ROWS, 10]
    assert report.created == report.refused_count == CHUNK_ROWS + 5
    assert len(report.refused) == MOST_REPORTED


def test_an_import_of_nothing_good_calls_nobody() -> None:
    transport = Fake()
    assert import_rows(_db(transport), ORGANISATION, [{"name": ""}]).refused_count == 1
    assert transport.calls == []
