"""Contacts: an import's rows made uniform, refused one by one with a reason, and stored in chunks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared import addresses
from shared.database import Database
from shared.values import AddressKind, clean_text

CHUNK_ROWS = 5000
MOST_ADDRESSES = 20
MOST_TAGS = 50
MOST_ATTRIBUTES = 100
MOST_GROUPS = 100
MOST_REPORTED = 1000

_COLUMNS = frozenset(
    {"external_id", "name", "language", "time_zone", "tags", "attributes", "group_ids", "addresses"}
)
_LANGUAGE = re.compile(r"([A-Za-z]{2})(?:[-_]([A-Za-z]{2}))?")
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,62}")


class RowError(ValueError):
    """A row that can't be imported. `column` and the reason go into the report; neither repeats a value."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column


@dataclass(slots=True)
class ImportReport:
    """What an import did. `refused` holds the first thousand rows {row, column, reason}, counted from 1."""

    created: int = 0
    updated: int = 0
    refused_count: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, row: int, column: str | None, reason: str) -> None:
        self.refused_count += 1
        if len(self.refused) < MOST_REPORTED:
            self.refused.append({"row": row, "column": column, "reason": reason})


def import_rows(
    db: Database,
    organisation_id: UUID,
    rows: Iterable[Mapping[str, Any]],
    *,
    country: str | None = None,
    local_sink: str | None = None,
) -> ImportReport:
    """Imports rows of any number, 5,000 a call; the good ones are stored whatever the others are.

    `country` reads national phone numbers. Raises AppError when a call fails: the chunks before it are
    stored, and the same import can be repeated.
    """
    report = ImportReport()
    numbered = enumerate(rows, start=1)
    while chunk := list(islice(numbered, CHUNK_ROWS)):
        places, contacts = [], []
        for number, row in chunk:
            try:
                contacts.append(normalise(row, country=country, local_sink=local_sink))
                places.append(number)
            except RowError as error:
                report.refuse(number, error.column, str(error))
        if contacts:
            _store(db, organisation_id, contacts, places, report)
    return report


def _store(
    db: Database,
    organisation_id: UUID,
    contacts: list[dict[str, Any]],
    places: Sequence[int],
    report: ImportReport,
) -> None:
    answer = db.rpc("import_contacts", p_organisation_id=str(organisation_id), p_contacts=contacts)
    report.created += answer["created"]
    report.updated += answer["updated"]
    for refused in answer["refused"]:
        report.refuse(places[refused["row"] - 1], refused["column"], refused["reason"])


def normalise(
    row: Mapping[str, Any], *, country: str | None = None, local_sink: str | None = None
) -> dict[str, Any]:
    """One contact as `import_contacts` takes it. Raises RowError with the column that is at fault."""
    unknown = set(row) - _COLUMNS
    if unknown:
        raise RowError(str(min(unknown))[:64], "is not a known column")
    contact = {
        "name": _column(row, "name", lambda text: clean_text(text, longest=200), needed=True),
        "external_id": _column(row, "external_id", lambda text: clean_text(text, longest=200)),
        "language": _column(row, "language", _language),
        "time_zone": _column(row, "time_zone", _time_zone),
        "tags": _texts(row, "tags", MOST_TAGS, lambda text: clean_text(text, longest=100)),
        "group_ids": _texts(row, "group_ids", MOST_GROUPS, lambda text: str(UUID(text))),
        "attributes": _attributes(row.get("attributes") or {}),
        "addresses": list(_addresses(row.get("addresses") or [], country, local_sink)),
    }
    return {name: value for name, value in contact.items() if value is not None}


def _column(
    row: Mapping[str, Any], name: str, check: Callable[[str], str], *, needed: bool = False
) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        if needed:
            raise RowError(name, "is missing")
        return None
    if not isinstance(value, str):
        raise RowError(name, "must be a text")
    try:
        return check(value)
    except ValueError as error:
        raise RowError(name, str(error)) from None


def _texts(row: Mapping[str, Any], name: str, most: int, check: Callable[[str], str]) -> list[str]:
    values = row.get(name) or []
    if (
        not isinstance(values, list | tuple)
        or len(values) > most
        or not all(isinstance(v, str) for v in values)
    ):
        raise RowError(name, f"must be at most {most} texts")
    try:
        return list(dict.fromkeys(check(value) for value in values))
    except ValueError:
        raise RowError(name, "holds an entry that is not acceptable") from None


def _language(text: str) -> str:
    match = _LANGUAGE.fullmatch(text.strip())
    if match is None:
        raise ValueError("must be a language such as fr or en-GB")
    return match[1].lower() + (f"-{match[2].upper()}" if match[2] else "")


@lru_cache(maxsize=1024)
def _time_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone such as Europe/Paris") from None
    return text


def _attributes(values: Any) -> dict[str, str | int | float | bool]:
    if not isinstance(values, dict) or len(values) > MOST_ATTRIBUTES:
        raise RowError("attributes", f"must be an object of at most {MOST_ATTRIBUTES} values")
    for name, value in values.items():
        if not isinstance(name, str) or _ATTRIBUTE.fullmatch(name) is None:
            raise RowError("attributes", "has a name that is not small letters, digits and _")
        if not isinstance(value, str | int | float | bool):
            raise RowError("attributes", "has a value that is not a text, a number or true or false")
        if isinstance(value, str) and value:
            _column(
                {"attributes": value}, "attributes", lambda text: clean_text(text, longest=1000, lines=True)
            )
    return values


def _addresses(values: Any, country: str | None, local_sink: str | None) -> Iterator[dict[str, str | int]]:
    if not isinstance(values, list | tuple) or len(values) > MOST_ADDRESSES:
        raise RowError("addresses", f"must be at most {MOST_ADDRESSES} addresses")
    seen = set()
    for place, value in enumerate(values, start=1):
        if not isinstance(value, Mapping) or not isinstance(value.get("value"), str):
            raise RowError("addresses", "must be objects {kind, value, position}")
        try:
            kind = AddressKind(str(value.get("kind")))
            text = addresses.normalise(kind, value["value"], country=country, local_sink=local_sink)
        except ValueError as error:
            known = isinstance(error, addresses.AddressError)
            raise RowError(
                "addresses", str(error) if known else "has a kind other than phone, email, endpoint"
            ) from None
        if (kind, text) not in seen:  # four spellings of one number are one address
            seen.add((kind, text))
            yield {"kind": kind.value, "value": text, "position": _position(value.get("position", place))}


def _position(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise RowError("addresses", "has a position that is not 1 to 100")
    return value


def endpoint_url(db: Database, organisation_id: UUID, address_id: UUID) -> str:
    """Where an endpoint address points. Raises Refusal 403 without contacts.write, 404 for no endpoint of theirs."""
    answer = db.rpc("read_endpoint", p_organisation_id=str(organisation_id), p_address_id=str(address_id))
    return str(answer["url"])
