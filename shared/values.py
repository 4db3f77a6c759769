"""The vocabulary: channels, failure classes, delivery ids, the states of a delivery, and clean text."""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from uuid import UUID


class Channel(StrEnum):
    """How a message travels."""

    SMS = "sms"
    VOICE = "voice"
    EMAIL = "email"
    WEBHOOK = "webhook"


class FailureClass(StrEnum):
    """Why a provider did not accept a message, as far as a retry loop must know.

    throttle: never processed, honour the wait. transient: surely not accepted, retry with backoff.
    permanent, content, destination: final for this delivery. configuration: final, and ours to mend.
    opted_out: final, and the destination is suppressed. unknown: perhaps accepted, ask before sending again.
    """

    THROTTLE = "throttle"
    TRANSIENT = "transient"
    PERMANENT = "permanent"
    CONTENT = "content"
    DESTINATION = "destination"
    CONFIGURATION = "configuration"
    OPTED_OUT = "opted_out"
    UNKNOWN = "unknown"


class AddressKind(StrEnum):
    """What an address is: SMS and voice use a phone, webhook an endpoint."""

    PHONE = "phone"
    EMAIL = "email"
    ENDPOINT = "endpoint"


class Severity(StrEnum):
    """How urgent an alert is: its lane in the queue."""

    CRITICAL = "critical"
    URGENT = "urgent"
    NORMAL = "normal"


class DeliveryState(StrEnum):
    """Where a delivery stands (design: product.md, a delivery's life)."""

    PLANNED = "planned"
    HELD = "held"
    CLAIMED = "claimed"
    HANDED_OVER = "handed_over"
    SENT = "sent"
    DELIVERED = "delivered"
    ANSWERED = "answered"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    LIMIT_EXCEEDED = "limit_exceeded"
    FAILED = "failed"
    UNDELIVERED = "undelivered"
    NO_RECEIPT = "no_receipt"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DEAD_LETTER = "dead_letter"


_DELIVERY_ID = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,8})")


def delivery_id(alert_id: UUID, number: int) -> str:
    """The one text form of a delivery's key, for URLs, tags and webhook ids: `<alert as 32 hex>-<number>`."""
    return f"{alert_id.hex}-{number}"


def parse_delivery_id(text: str) -> tuple[UUID, int]:
    """The alert and number of a delivery id. Raises ValueError for what `delivery_id` would not have made."""
    match = _DELIVERY_ID.fullmatch(text)
    if match is None:
        raise ValueError("not a delivery id")
    return UUID(hex=match[1]), int(match[2])


# C0, DEL, C1, line separators, and the marks that turn the direction of text: none has a place in a name or a
# subject (e-mail header injection, terminal escapes, disguised text). `private.is_clean` in SQL says the
# same.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def clean_text(text: str, *, longest: int, lines: bool = False) -> str:
    """The text in Unicode's composed form, without outer spaces: 1 to `longest` characters.

    `lines` allows tabs and line ends. Raises ValueError, which never repeats the text.
    """
    cleaned = unicodedata.normalize("NFC", text).strip()
    if (_CONTROL_BUT_LINES if lines else _CONTROL).search(cleaned):
        raise ValueError("must hold no control characters")
    if not 1 <= len(cleaned) <= longest:
        raise ValueError(f"must have 1 to {longest} characters")
    return cleaned


def stored_text(text: str, *, longest: int) -> str:
    """What others sent us, as the database can keep it: PostgreSQL knows neither NUL nor lone surrogates."""
    return re.sub("[\x00\ud800-\udfff]", "\ufffd", text)[:longest]
