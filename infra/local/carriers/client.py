"""A small client of the control doors, for the demo and the tests: one connection, blocking."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT_SECONDS = 30.0


class CarriersError(Exception):
    """The carriers refused or did not answer; `status` is 0 when they did not."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"carriers: {status} {detail}" if status else f"carriers: {detail}")
        self.status = status


@dataclass(slots=True, frozen=True)
class Accepted:
    """One accepted message, call, e-mail or webhook, as the journal has it. Times in epoch seconds."""

    sequence: int
    time: float
    begun_at: float
    channel: str
    provider_id: str
    destination: str
    body_sha256: str
    body_length: int
    reference: str | None
    attempt: str | None
    idempotency_key: str | None
    request_id: str | None
    answer_lost: bool
    erased: bool
    body: str | None = None
    headers: dict[str, str] | None = None


class Carriers:
    """The carriers at a base URL, e.g. `http://127.0.0.1:54330`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_SECONDS
        )

    def close(self) -> None:
        """Close the connection; the next call opens one again."""
        self._connection.close()

    def counts(self) -> dict[str, Any]:
        """Numbers a channel, and of the receipts."""
        counts: dict[str, Any] = self._ask("GET", "/journal/counts")
        return counts

    def journal(self, channel: str | None = None, after: int = 0) -> Iterator[Accepted]:
        """Every accepted row past a sequence, in order, page by page."""
        following: int | None = after
        while following is not None:
            query = {"after": following} | ({"channel": channel} if channel else {})
            page = self._ask("GET", "/journal?" + urlencode(query))
            yield from (Accepted(**row) for row in page["rows"])
            following = page["next_after"]

    def requests(self, since: float = 0.0, channel: str | None = None) -> list[dict[str, Any]]:
        """The newest 10,000 requests begun at `since` (epoch seconds) or later, refused ones too."""
        query = {"since": since} | ({"channel": channel} if channel else {})
        found: list[dict[str, Any]] = self._ask("GET", "/journal/requests?" + urlencode(query))["requests"]
        return found

    def knobs(self, **changes: object) -> dict[str, Any]:
        """Turn knobs (`sms={"rate_429": 0.5}`, `all={...}`, `seed=3`) or only read them; returns all."""
        knobs: dict[str, Any] = (
            self._ask("POST", "/knobs", changes) if changes else self._ask("GET", "/knobs")
        )
        return knobs

    def preset(self, name: str) -> dict[str, Any]:
        """Set every knob: none, standard or storm."""
        return self.knobs(preset=name)

    def reset(self, seed: int | None = None) -> None:
        """Forget all traffic; knobs stay."""
        self._ask("POST", "/reset", {} if seed is None else {"seed": seed})

    def inbound(self, sender: str, to: str, body: str, opt_out_type: str | None = None) -> dict[str, Any]:
        """A text message from a person; returns what our webhook answered: sid, status, reason, body."""
        document = {"from": sender, "to": to, "body": body}
        return self._simulate("inbound", document | ({"opt_out_type": opt_out_type} if opt_out_type else {}))

    def answer(self, to: str, digits: str) -> dict[str, Any]:
        """A key pressed in the newest call to a number."""
        return self._simulate("answer", {"to": to, "digits": digits})

    def receipt(self, sid: str, status: str, error_code: int | None = None) -> dict[str, Any]:
        """One more status of a message, call or e-mail."""
        document: dict[str, object] = {"sid": sid, "status": status}
        return self._simulate("receipt", document | ({"error_code": error_code} if error_code else {}))

    def wait_receipts(self, timeout_seconds: float) -> dict[str, Any]:
        """Wait until no callback is pending; returns their counts. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            receipts: dict[str, Any] = self.counts()["receipts"]
            if receipts["pending"] == 0:
                return receipts
            if time.monotonic() > deadline:
                raise TimeoutError(f"{receipts['pending']} receipts are still pending")
            time.sleep(0.05)

    def _simulate(self, what: str, document: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._ask("POST", f"/simulate/{what}", document)
        return result

    def _ask(self, method: str, path: str, document: object = None) -> Any:
        body = None if document is None else json.dumps(document)
        try:
            self._connection.request(method, path, body=body)
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise CarriersError(0, type(error).__name__) from error
        answer = json.loads(content) if content else None
        if response.status >= 400:
            raise CarriersError(response.status, answer["detail"] if answer else "")
        return answer
