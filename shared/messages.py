"""What a channel is given to send and what it answers: the words between dispatcher and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.errors import SendError
from shared.values import Channel


@dataclass(slots=True, frozen=True)
class Message:
    """One claimed delivery, resolved and rendered: everything an adapter may know about it."""

    delivery_id: str
    organisation_id: str
    attempt: int
    to: str  # E.164 number, e-mail address or https URL
    language: str  # BCP 47, e.g. "fr"
    subject: str | None
    body: str
    html: str | None = None
    expires_at: float | None = None  # epoch seconds
    acknowledge: bool = False  # voice: ask for a key press


@dataclass(slots=True, frozen=True)
class Accepted:
    """The provider took the message; `provider_id` is its name for it (empty where it gives none)."""

    provider_id: str


Outcome = Accepted | SendError


class Adapter(Protocol):
    """One provider's dialect. It never retries, never touches the database and never logs an address."""

    channel: Channel
    batch_size: int  # messages a request; more than 1 only where a batch has an idempotency key
    reconciles_by_resending: (
        bool  # the receiver drops repeats, so a send in doubt is settled by sending it again
    )

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        """Send up to `batch_size` messages in one request; one outcome a message, in order, never an exception.

        `key` names this frozen batch: the same key is given again when its outcome was unknown.
        """

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        """Ask the provider for this message, tried at `since` (epoch seconds) or later; None: it has not got it.

        Raises SendError when the provider can't say now (ask again later).
        """
