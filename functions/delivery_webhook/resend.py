"""Resend's events: proved by their Svix signature over the raw body, then told as receipts.

Source: https://resend.com/docs/dashboard/webhooks/event-types. The reference is in the tags that we put on
the e-mail.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from shared import web
from shared.errors import Refusal
from shared.receipts import Receipt
from shared.signatures import ResendVerifier

_SIGNED = ("svix-id", "svix-timestamp", "svix-signature")

# which part of an event's data says why, by the event's type
_REASONS = {
    "bounced": ("bounce", "type"),
    "failed": ("failed", "reason"),
    "suppressed": ("suppressed", "type"),
}


def receipt(request: web.Request, verifier: ResendVerifier) -> Receipt | None:
    """The receipt, or None for an event that is not about an e-mail we sent. Raises Refusal 401 or 400."""
    headers = {name: request.headers.get(name, "") for name in _SIGNED}
    if not verifier.verify(headers, request.body):
        raise Refusal("signature_invalid", "Resend's signature is missing, wrong or too old.", status=401)
    try:
        event = json.loads(request.body)
        kind, data = str(event["type"]), event["data"]
        if not kind.startswith("email.") or kind == "email.received":
            return None
        return _receipt(headers["svix-id"], kind.removeprefix("email."), event, data)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refusal(
            "callback_malformed", "The event has not the shape of Resend's events.", status=400
        ) from None


def _receipt(event_key: str, status: str, event: dict[str, Any], data: dict[str, Any]) -> Receipt:
    tags = _tags(data.get("tags"))
    return Receipt(
        provider="resend",
        kind="email",
        event_key=event_key,
        provider_id=str(data["email_id"]),
        status=status,
        delivery_id=tags.get("delivery"),
        attempt=_attempt(tags.get("attempt", "")),
        code=_reason(status, data),
        occurred_at=_instant(event.get("created_at")),
    )


def _tags(tags: Any) -> dict[str, str]:
    """Tags come back as an object; older events have the list that was sent."""
    pairs = tags.items() if isinstance(tags, dict) else [(t["name"], t["value"]) for t in tags or []]
    return {str(name): str(value) for name, value in pairs}


def _attempt(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else None


def _reason(status: str, data: dict[str, Any]) -> str | None:
    part, name = _REASONS.get(status, ("", ""))
    reason = (data.get(part) or {}).get(name)
    return str(reason) if reason else None


def _instant(text: Any) -> datetime | None:
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return instant if instant.tzinfo else None
