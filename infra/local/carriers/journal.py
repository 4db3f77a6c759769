"""The journal: what was accepted (the ground truth), and what was asked at all."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field, fields
from hashlib import sha256
from io import TextIOBase

from infra.local.carriers.knobs import CHANNELS

REQUESTS_KEPT = 1_000_000


class JournalFullError(Exception):
    """The journal holds as many rows as it may: nothing more can be accepted without losing the truth."""


@dataclass(slots=True)
class Row:
    """One accepted message, call, e-mail or webhook. Times in epoch seconds."""

    time: float
    begun_at: float
    channel: str
    provider_id: str
    destination: str
    body: bytes | None
    reference: str | None
    attempt: str | None = None
    idempotency_key: str | None = None
    request_id: str | None = None
    answer_lost: bool = False
    headers: dict[str, str] | None = None
    erased: bool = False
    sequence: int = 0
    body_length: int = field(init=False)
    body_sha256: bytes = field(init=False)
    keep_body: InitVar[bool] = False

    def __post_init__(self, keep_body: bool) -> None:
        body = self.body or b""
        self.body_length = len(body)
        self.body_sha256 = sha256(body).digest()
        if not keep_body:
            self.body = None

    def erase(self) -> None:
        """Forget whom and what, as the provider does when asked; that something was accepted stays."""
        self.destination = ""
        self.body = None
        self.body_sha256 = b""
        self.erased = True

    def document(self) -> dict[str, object]:
        """The row as the control door shows it."""
        document = {name: getattr(self, name) for name in _SHOWN}
        document["body_sha256"] = self.body_sha256.hex()
        if self.body is not None:
            document["body"] = self.body.decode("utf-8", "replace")
        if self.headers is not None:
            document["headers"] = self.headers
        return document


_SHOWN = tuple(each.name for each in fields(Row) if each.name not in ("body", "headers"))


class ChannelCounts:
    """One channel's numbers."""

    def __init__(self) -> None:
        self.requests = 0
        self.accepted = 0
        self.replayed = 0  # repeats that an idempotency key answered
        self.duplicates = 0  # accepted although this reference had been accepted before
        self.answers_lost = 0
        self.refused: Counter[int] = Counter()
        self.first_begun_at: float | None = None
        self.last_begun_at: float | None = None
        self.references: Counter[str] = Counter()

    def document(self) -> dict[str, object]:
        """The numbers by name; `refused` by HTTP status as text, 0 for a request that got no answer."""
        plain = {name: value for name, value in vars(self).items() if name not in ("references", "refused")}
        return {
            **plain,
            "references": len(self.references),
            "refused": {str(status): count for status, count in sorted(self.refused.items())},
        }


class Journal:
    """Accepted rows in order, every request that was begun, and counts of both."""

    def __init__(self, maximum_rows: int, file: TextIOBase | None = None) -> None:
        self._maximum_rows = maximum_rows
        self._file = file
        self.clear()

    def clear(self) -> None:
        """Forget everything; sequences begin again."""
        self._rows: list[Row] = []
        self._requests: deque[tuple[float, str, Sequence[str], int]] = deque(maxlen=REQUESTS_KEPT)
        self.counts = {channel: ChannelCounts() for channel in CHANNELS}

    def has_room(self, rows: int) -> bool:
        """Whether so many rows more can be written."""
        return len(self._rows) + rows <= self._maximum_rows

    def accept(self, row: Row) -> int:
        """Write a row; returns its sequence (from 1). Raises JournalFullError."""
        if not self.has_room(1):
            raise JournalFullError
        self._rows.append(row)
        row.sequence = len(self._rows)
        counts = self.counts[row.channel]
        counts.accepted += 1
        counts.answers_lost += row.answer_lost
        if row.reference is not None:
            counts.duplicates += row.reference in counts.references
            counts.references[row.reference] += 1
        if self._file is not None:
            self._file.write(json.dumps(row.document()) + "\n")
        return row.sequence

    def note_request(self, channel: str, begun_at: float, references: Sequence[str], status: int) -> None:
        """Count a request that was seen, whatever became of it; status 0: no answer was given."""
        counts = self.counts[channel]
        counts.requests += 1
        if counts.first_begun_at is None:
            counts.first_begun_at = begun_at
        counts.last_begun_at = begun_at
        if not 200 <= status < 300:
            counts.refused[status] += 1
        self._requests.append((begun_at, channel, references, status))

    def mark_unheard(self, rows: tuple[int, int]) -> None:
        """The client left before it had the answer that told of these rows (first, one past the last)."""
        for row in self._rows[rows[0] - 1 : rows[1] - 1]:
            if not row.answer_lost:
                row.answer_lost = True
                self.counts[row.channel].answers_lost += 1

    def row(self, sequence: int) -> Row | None:
        """The row of a sequence, if it is still there."""
        return self._rows[sequence - 1] if 0 < sequence <= len(self._rows) else None

    def page(self, after: int, limit: int, channel: str | None) -> tuple[list[Row], int | None]:
        """Rows past a sequence, and where to go on (None: that was all)."""
        found: list[Row] = []
        for index in range(after, len(self._rows)):
            row = self._rows[index]
            if channel is None or row.channel == channel:
                found.append(row)
                if len(found) == limit:
                    return found, row.sequence if row.sequence < len(self._rows) else None
        return found, None

    def requests(self, since: float, channel: str | None) -> Iterator[dict[str, object]]:
        """Requests begun at `since` (epoch seconds) or later, newest first."""
        for begun_at, name, references, status in reversed(self._requests):
            if begun_at < since:
                break
            if channel is None or name == channel:
                yield {
                    "begun_at": begun_at, "channel": name, "references": list(references), "status": status,
                }  # fmt: skip

    def flush(self) -> None:
        """Hand the file's lines to the operating system."""
        if self._file is not None:
            self._file.flush()
