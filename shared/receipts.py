"""Receipts, answers and inbound messages: what providers tell us about what was sent.

Callbacks that come at once share one call: while one is under way the next ones gather, and each is answered
only when its own row is committed. A row that the database can't take fails alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from shared.database import Database
from shared.errors import AppError, Unavailable
from shared.values import parse_delivery_id, stored_text

LARGEST_BATCH = 500
LONGEST_WAIT_SECONDS = 14  # Twilio hangs up after 15
LONGEST_MESSAGE = 4000


@dataclass(frozen=True, slots=True)
class Receipt:
    """One provider event. `event_key` names it once and for all: a repeat has the same."""

    provider: Literal["twilio", "resend"]
    kind: Literal["message", "call", "email"]
    event_key: str
    provider_id: str
    status: str  # the provider's own word, known or not
    delivery_id: str | None = None
    attempt: int | None = None
    code: str | None = None
    occurred_at: datetime | None = None

    def row(self) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "kind": self.kind,
            "event_key": stored_text(self.event_key, longest=200),
            "provider_id": stored_text(self.provider_id, longest=100),
            "status": stored_text(self.status, longest=40),
            "delivery_id": _reference(self.delivery_id),
            "attempt": self.attempt,
            "code": stored_text(self.code, longest=60) if self.code else None,
            "occurred_at": self.occurred_at.isoformat() if self.occurred_at else None,
        }


def _reference(delivery_id: str | None) -> str | None:
    """The delivery id when it is one; anything else waits in the inbox for its provider id."""
    try:
        return delivery_id if delivery_id and parse_delivery_id(delivery_id)[0] else None
    except ValueError:
        return None


def record(db: Database, rows: Sequence[dict[str, Any]]) -> Any:
    """Stores each event once and applies it: {stored, repeated, applied, waiting}."""
    return db.rpc("record_receipts", p_receipts=list(rows))


def record_answer(db: Database, delivery_id: str, attempt: int, option: str, provider_id: str) -> bool:
    """A key pressed in a call: 1 acknowledges, any other is kept as unclear. Whether the answer was clear."""
    answer = {
        "delivery_id": delivery_id,
        "attempt": attempt,
        "source": "key_press",
        "option": stored_text(option, longest=20),
        "provider_id": stored_text(provider_id, longest=100),
    }
    recorded: dict[str, Any] = db.rpc("record_answer", p_answer=answer)
    return bool(recorded.get("clear", recorded.get("recorded") and option == "1"))


def record_inbound(
    db: Database, *, provider_id: str, sender: str, recipient: str, body: str, opt_out_type: str | None
) -> Any:
    """A message that someone sent us, kept once: {stored, repeated}."""
    message = {
        "provider": "twilio",
        "provider_id": stored_text(provider_id, longest=100),
        "channel": "sms",
        "sender": stored_text(sender, longest=200),
        "recipient": stored_text(recipient, longest=200),
        "body": stored_text(body, longest=LONGEST_MESSAGE),
        "opt_out_type": stored_text(opt_out_type, longest=20) if opt_out_type else None,
    }
    return db.rpc("record_inbound", p_messages=[message])


class _Entry:
    """One row and the thread that waits for it, on a bare lock: an Event costs three times as much."""

    __slots__ = ("_settled", "error", "leads", "row")

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.error: AppError | None = None
        self.leads = False
        self._settled = threading.Lock()
        self._settled.acquire()

    def wait(self) -> bool:
        return self._settled.acquire(timeout=LONGEST_WAIT_SECONDS)

    def settle(self) -> None:
        self._settled.release()


class Gatherer:
    """Lets request threads share calls: the first leads, the others follow, one of them leads the next.

    `store(db, rows)` carries a batch out. Between calls there is no thread and nothing is kept.
    """

    def __init__(self, store: Callable[[Database, Sequence[dict[str, Any]]], Any] = record) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._led = False

    def submit(self, db: Database, row: dict[str, Any]) -> None:
        """Returns when the row is committed. Raises this row's AppError, or Unavailable after 14 seconds."""
        entry = _Entry(row)
        with self._lock:
            self._waiting.append(entry)
            entry.leads = not self._led
            self._led = True
        if not entry.leads and not entry.wait():
            self._give_up(entry)
        if entry.leads:
            self._lead(db, entry)
        if entry.error is not None:
            raise entry.error

    def _lead(self, db: Database, leader: _Entry) -> None:
        with self._lock:
            batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
        try:
            self._carry_out(db, batch)
        finally:
            self._hand_over(batch, leader)

    def _hand_over(self, batch: list[_Entry], leader: _Entry) -> None:
        with self._lock:
            heir = self._waiting[0] if self._waiting else None
            self._led = heir is not None
            if heir is not None:
                heir.leads = True
        if heir is not None:
            heir.settle()  # wakes it to lead; its own row is in the batch that it takes
        for entry in batch:
            if entry is not leader:
                entry.settle()

    def _give_up(self, entry: _Entry) -> None:
        """Too late: the row is taken back if nobody carries it yet. Whoever was just made heir leads all the
        same.
        """
        with self._lock:
            if entry.leads:
                return
            if entry in self._waiting:
                self._waiting.remove(entry)
            entry.error = Unavailable(
                "receipt_not_stored", "The receipt was not stored in time. Send it again."
            )

    def _carry_out(self, db: Database, batch: list[_Entry]) -> None:
        """Stores a batch; where a row spoils it, halves until the row stands alone, and its neighbours are
        stored.
        """
        try:
            self._store(db, [entry.row for entry in batch])
        except Unavailable as error:
            for entry in batch:
                entry.error = error
        except AppError as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            middle = len(batch) // 2
            self._carry_out(db, batch[:middle])
            self._carry_out(db, batch[middle:])
