"""Deliveries: claiming them under a lease, recording what came of them, asking about those in doubt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from shared.errors import SendError
from shared.messages import Accepted, Message, Outcome
from shared.values import Channel


class ServiceDatabase(Protocol):
    """The dispatcher's database door (`database.AsyncDatabase`)."""

    async def rpc(self, name: str, **arguments: Any) -> Any:
        """Call one SQL function. Raises AppError."""


@dataclass(slots=True, frozen=True)
class Lease:
    """A claimed batch: what one dispatcher alone may send until `seconds` after it asked.

    `key` names the frozen batch for good. In doubt: `since` is the instant before which no attempt of it began
    (epoch seconds), `doubted_seconds` how long ago, by the database's clock, the last one can have begun, and
    `gone` are those that can no longer be asked about, as (id, attempt).
    """

    token: str
    key: str
    since: float
    messages: tuple[Message, ...]
    doubted_seconds: float = 0.0
    gone: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True, frozen=True)
class Claim:
    """The answer to a claim: a lease, or in how many seconds to ask again (None: nothing is coming)."""

    lease: Lease | None
    wait_seconds: float | None


async def claim(
    database: ServiceDatabase, channel: Channel, *, batch: int, lease_seconds: int, worker: str
) -> Claim:
    """Claim up to `batch` deliveries of a channel, at the sender's pace and in turns between organisations."""
    answer = await database.rpc(
        "claim_deliveries", p_channel=channel, p_batch=batch, p_lease_seconds=lease_seconds, p_worker=worker
    )
    return Claim(_lease(channel, answer), answer["wait_seconds"])


async def claim_unknown(
    database: ServiceDatabase, channel: Channel, *, lease_seconds: int, worker: str
) -> Lease | None:
    """Claim one batch whose outcome nobody knows, to ask the provider about it; None when there is none."""
    answer = await database.rpc(
        "claim_unknown", p_channel=channel, p_lease_seconds=lease_seconds, p_worker=worker
    )
    return _lease(channel, answer)


async def record(database: ServiceDatabase, token: str, results: list[dict[str, Any]]) -> Mapping[str, int]:
    """Record results under a lease and settle their credits; {recorded, fenced}. Safe to repeat."""
    answer: Mapping[str, int] = await database.rpc("record_results", p_lease=token, p_results=results)
    return answer


def result(message: Message, outcome: Outcome | str) -> dict[str, Any]:
    """One row for `record`: an adapter's outcome, or `absent`, `unclear` or `returned`."""
    row: dict[str, Any] = {"id": message.delivery_id, "attempt": message.attempt}
    if isinstance(outcome, Accepted):
        row |= {"outcome": "accepted", "provider_id": outcome.provider_id}
    elif isinstance(outcome, SendError):
        row |= {"outcome": outcome.failure_class.value, "code": outcome.code}
        if outcome.retry_after_seconds is not None:
            row["retry_after_seconds"] = outcome.retry_after_seconds
    else:
        row["outcome"] = outcome
    return row


def unanswerable(lease: Lease, outcome: str) -> Iterable[dict[str, Any]]:
    """Rows for `record` for the deliveries of a lease that nobody can ask about any more."""
    return ({"id": each, "attempt": attempt, "outcome": outcome} for each, attempt in lease.gone)


def _lease(channel: Channel, answer: Mapping[str, Any]) -> Lease | None:
    token = answer["lease"]
    if token is None:
        return None
    rows = answer["deliveries"]
    return Lease(
        token=token,
        key=answer.get("key") or token,
        since=answer.get("since") or answer["now"],
        doubted_seconds=answer.get("doubted_seconds") or 0.0,
        messages=tuple(_message(channel, row) for row in rows if row["to"] is not None),
        gone=tuple((row["id"], row["attempt"]) for row in rows if row["to"] is None),
    )


def _message(channel: Channel, row: Mapping[str, Any]) -> Message:
    return Message(
        delivery_id=row["id"],
        organisation_id=row["organisation_id"],
        attempt=row["attempt"],
        to=row["to"],
        language=row["language"],
        subject=row["subject"],
        body=row["body"],
        html=row["html"],
        expires_at=row["expires_at"],
        acknowledge=channel is Channel.VOICE,
    )
