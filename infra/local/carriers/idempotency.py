"""Idempotency keys as Resend keeps them: 24 hours, the same payload gets the first answer.

Source: https://resend.com/docs/dashboard/emails/idempotency-keys
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

KEPT_SECONDS = 24 * 3600.0


class Conflict(Enum):
    """Why a key cannot be used."""

    OTHER_PAYLOAD = "other_payload"
    IN_PROGRESS = "in_progress"


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    kept_until: float
    answers_at: float
    answer: bytes


class Idempotency:
    """First answers by key. Only successes are kept: a refused request may be repeated under its key."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def find(self, key: str, payload: bytes, now: float) -> bytes | Conflict | None:
        """The first answer's body, what is wrong, or None when the key is new or too old."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.kept_until:
            return None
        if entry.fingerprint != sha256(payload).digest():
            return Conflict.OTHER_PAYLOAD
        return Conflict.IN_PROGRESS if now < entry.answers_at else entry.answer

    def keep(self, key: str, payload: bytes, answer: bytes, now: float, answers_at: float) -> None:
        """Remember the first answer, which is on its way until `answers_at`."""
        self._entries[key] = _Entry(sha256(payload).digest(), now + KEPT_SECONDS, answers_at, answer)
