"""A database and a provider held in memory: what the dispatcher asks of them, when, in which order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

from shared.errors import SendError, Unavailable
from shared.messages import Accepted, Message, Outcome
from shared.values import Channel, FailureClass


class FakeDatabase:
    """Hands out `count` deliveries under leases and keeps what is recorded; `doubts` are leases in doubt."""

    def __init__(self, count: int, *, wait_seconds: float | None = None) -> None:
        self.unclaimed = deque(f"{1:032x}-{number}" for number in range(1, count + 1))
        self.wait_seconds = wait_seconds
        self.doubts: deque[list[dict[str, Any]]] = deque()
        self.doubted_seconds = 0.0
        self.recorded: list[dict[str, Any]] = []
        self.leases: dict[str, list[str]] = {}
        self.failures_left = 0
        self.calls: list[str] = []

    async def rpc(self, name: str, **arguments: Any) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        if self.failures_left > 0:
            self.failures_left -= 1
            raise Unavailable("database_unavailable", "Try again.")
        answer: Callable[..., Any] = getattr(self, f"_{name}")
        return answer(**arguments)

    def _claim_deliveries(self, p_channel: Channel, p_batch: int, p_lease_seconds: int, p_worker: str) -> Any:
        rows = [row(self.unclaimed.popleft()) for _ in range(min(p_batch, len(self.unclaimed)))]
        return self._lease(rows) | {"wait_seconds": 0 if self.unclaimed else self.wait_seconds}

    def _claim_unknown(self, p_channel: Channel, p_lease_seconds: int, p_worker: str) -> Any:
        rows = self.doubts.popleft() if self.doubts else []
        return self._lease(rows) | {"key": "frozen", "since": 1.0, "doubted_seconds": self.doubted_seconds}

    def _lease(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        token = str(uuid4()) if rows else None
        if token is not None:
            self.leases[token] = [each["id"] for each in rows]
        return {"lease": token, "now": 1.0, "deliveries": rows}

    def _record_results(self, p_lease: str, p_results: list[dict[str, Any]]) -> Any:
        assert {each["id"] for each in p_results} <= set(self.leases[p_lease]), (
            "recorded under another's lease"
        )
        self.recorded += p_results
        return {"recorded": len(p_results), "fenced": 0}

    def outcomes(self) -> list[str]:
        """Every recorded outcome, sorted."""
        return sorted(each["outcome"] for each in self.recorded)


def row(delivery_id: str, **changes: Any) -> dict[str, Any]:
    """A delivery as the database claims it."""
    return {
        "id": delivery_id,
        "organisation_id": "o",
        "attempt": 1,
        "to": "+33612345678",
        "language": "fr",
        "subject": None,
        "body": "Bonjour",
        "html": None,
        "segments": 1,
        "expires_at": None,
    } | changes


class FakeAdapter:
    """A provider: `answer` decides each outcome; it counts what is in flight and keeps the order of what was begun."""

    channel = Channel.SMS

    def __init__(
        self,
        answer: Callable[[Message], Outcome] = lambda message: Accepted(message.delivery_id),
        *,
        batch_size: int = 1,
        reconciles_by_resending: bool = False,
        seconds: float = 0.0,
        known: Callable[[Message], Accepted | None] = lambda message: None,
    ) -> None:
        self.batch_size = batch_size
        self.reconciles_by_resending = reconciles_by_resending
        self.begun: list[tuple[str, tuple[str, ...]]] = []
        self.looked_up: list[str] = []
        self.most_in_flight = 0
        self._answer = answer
        self._known = known
        self._seconds = seconds
        self._in_flight = 0

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        self.begun.append((key, tuple(each.delivery_id for each in messages)))
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        await asyncio.sleep(self._seconds)
        self._in_flight -= 1
        return [self._answer(each) for each in messages]

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        self.looked_up.append(message.delivery_id)
        return self._known(message)


def failing(failure_class: FailureClass, code: str = "x") -> Callable[[Message], Outcome]:
    """A provider that answers everything with one failure."""
    return lambda _message: SendError(failure_class, code)
