"""What the providers keep about each message, call and e-mail, and the shelf that keeps it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar


@dataclass(slots=True)
class Message:
    """One SMS. Its status follows from the clock; times in epoch seconds."""

    sid: str
    to: str
    sender: str | None
    service: str | None
    body: str
    created_at: float
    callback: str | None
    row: int  # journal sequence
    queued_at: float = 0.0
    sent_at: float = 0.0
    final_at: float = 0.0
    final_status: str = "delivered"
    error_code: int | None = None

    def status(self, now: float) -> str:
        """The status at a moment."""
        if now >= self.final_at:
            return self.final_status
        if now >= self.sent_at:
            return "sent"
        return "queued" if self.service is None or now >= self.queued_at else "accepted"


@dataclass(slots=True)
class Call:
    """One call. `final_status`: completed, busy or no-answer."""

    sid: str
    to: str
    sender: str
    created_at: float
    row: int
    callback: str | None
    events: frozenset[str]
    action: str | None  # where a key press goes
    act_on_silence: bool
    detects_machines: bool
    machine_callback: str | None
    ringing_at: float = 0.0
    answered_at: float = 0.0
    ended_at: float = 0.0
    final_status: str = "completed"
    machine: bool = False
    digits: str = ""
    sequence: int = field(default=0)

    def status(self, now: float) -> str:
        """The status at a moment."""
        if now >= self.ended_at:
            return self.final_status
        if self.final_status == "completed" and now >= self.answered_at:
            return "in-progress"
        return "ringing" if now >= self.ringing_at else "queued"

    @property
    def answered_by(self) -> str | None:
        """Who picked up, where it was asked to find out and somebody did."""
        if not self.detects_machines or self.final_status != "completed":
            return None
        return "machine_end_beep" if self.machine else "human"

    @property
    def duration_seconds(self) -> int:
        """How long the talk was, as the bill would have it (not how long this simulation took)."""
        return 0 if self.final_status != "completed" else 24 if self.machine else 12


@dataclass(slots=True)
class Email:
    """One e-mail; `events` are what happened to it and when, in order (a time and a Resend event name)."""

    id: str
    to: tuple[str, ...]
    sender: str
    subject: str
    html: str | None
    text: str | None
    created_at: float
    row: int
    tags: dict[str, str]
    headers: dict[str, str]
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: tuple[str, ...] = ()
    events: Sequence[tuple[float, str]] = ()
    transient_bounce: bool = False

    def last_event(self, now: float) -> str:
        """The name of the last event at a moment, e.g. `delivered`."""
        last = "queued"
        for at, name in self.events:
            if at <= now:
                last = name
        return last


Kept = TypeVar("Kept", Message, Call, Email)


class Shelf(Generic[Kept]):
    """Records by id, and by whom they are for, newest first."""

    def __init__(self) -> None:
        self._by_id: dict[str, Kept] = {}
        self._by_destination: dict[str, list[str]] = {}

    def put(self, identifier: str, destination: str, record: Kept) -> None:
        """Keep a new record."""
        self._by_id[identifier] = record
        self._by_destination.setdefault(destination, []).append(identifier)

    def get(self, identifier: str) -> Kept | None:
        """The record of an id."""
        return self._by_id.get(identifier)

    def remove(self, identifier: str, destination: str) -> None:
        """Forget a record."""
        del self._by_id[identifier]
        self._by_destination[destination].remove(identifier)

    def newest(self, destination: str | None) -> Iterator[Kept]:
        """Records, newest first; of one destination or of all."""
        keys = self._by_id if destination is None else self._by_destination.get(destination, [])
        for key in reversed(keys):
            yield self._by_id[key]
