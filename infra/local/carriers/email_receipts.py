"""What becomes of an e-mail, and the signed events that tell of it.

Sources: https://resend.com/docs/dashboard/webhooks/event-types and the webhooks of the OpenAPI document
`resend.json`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from infra.local.carriers.callbacks import Job, Outgoing
from infra.local.carriers.exchange import encode
from infra.local.carriers.receipts import spread
from infra.local.carriers.records import Email
from infra.local.carriers.signing import new_svix_id, sign_svix
from infra.local.carriers.world import World

_BOUNCE, _KIND, _COMPLAINT = range(3)
_TRANSIENT_SHARE = 0.25  # of the bounces
# Resend's own test addresses: https://resend.com/docs/dashboard/emails/send-test-emails
_MAGIC = re.compile(r"(delivered|bounced|complained|suppressed)(?:\+[^@]*)?@resend\.dev$")
_RETRIES = 8  # Svix goes on for a day; here the waits are shortened, not the number of tries
_RETRY_ON = frozenset({"ct", "rt", "3xx", "4xx", "5xx"})


def foresee(world: World, email: Email) -> None:
    """Decide when this e-mail is sent and how it ends."""
    knobs = world.board.of["email"]
    step_seconds = knobs.receipt_delay_ms / 1000
    sent_at, ended_at = email.created_at + step_seconds, email.created_at + 2 * step_seconds
    draws = world.chance.draw("outcome", "email", email.to[0])
    magic = _MAGIC.match(email.to[0])
    if magic is not None:
        email.events = ((sent_at, "sent"), (ended_at, magic[1]))
        return
    if draws[_BOUNCE] < knobs.rate_bounce:
        email.transient_bounce = draws[_KIND] < _TRANSIENT_SHARE
        email.events = ((sent_at, "sent"), (ended_at, "bounced"))
        return
    email.events = ((sent_at, "sent"), (ended_at, "delivered"))
    if draws[_COMPLAINT] < knobs.rate_complaint:
        email.events = (*email.events, (ended_at + step_seconds, "complained"))


def tell(world: World, email: Email) -> None:
    """Schedule the events."""
    if not world.settings.resend_webhook_url or not world.settings.resend_webhook_secret:
        return
    told = [(at - email.created_at, event(world, email, name, at)) for at, name in email.events]
    spread(world, "email", email.to[0], told)


def event(world: World, email: Email, name: str, at: float) -> Job:
    """One event; every repeat carries the same svix-id."""
    body = encode({"type": f"email.{name}", "created_at": _iso(at), "data": _data(email, name)})
    message_id, secret = new_svix_id(), world.settings.resend_webhook_secret

    def build() -> Outgoing:
        timestamp = int(world.clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Svix-Webhooks/1.24.0",
            "svix-id": message_id,
            "svix-timestamp": str(timestamp),
            "svix-signature": sign_svix(secret, message_id, timestamp, body),
        }
        return headers, body

    return Job("email", world.settings.resend_webhook_url, build, _RETRIES, _RETRY_ON)


def _data(email: Email, name: str) -> dict[str, object]:
    data: dict[str, object] = {
        "created_at": _iso(email.created_at), "email_id": email.id, "from": email.sender,
        "to": list(email.to), "subject": email.subject,
    }  # fmt: skip
    if email.tags:
        data["tags"] = email.tags
    if email.headers:
        data["headers"] = [{"name": header, "value": value} for header, value in email.headers.items()]
    if name == "bounced":
        data["bounce"] = _TRANSIENT_BOUNCE if email.transient_bounce else _PERMANENT_BOUNCE
    return data | _REASONS.get(name, {})


_PERMANENT_BOUNCE = {
    "type": "Permanent", "subType": "General", "diagnosticCode": ["smtp; 550 5.1.1 user unknown"],
    "message": "The recipient's mail server permanently rejected the message.",
}  # fmt: skip
_TRANSIENT_BOUNCE = {
    "type": "Transient", "subType": "MailboxFull", "diagnosticCode": ["smtp; 452 4.2.2 mailbox full"],
    "message": "The recipient's mailbox is full.",
}  # fmt: skip


_REASONS: dict[str, dict[str, object]] = {
    "failed": {"failed": {"reason": "reached_daily_quota"}},
    "suppressed": {
        "suppressed": {
            "type": "OnAccountSuppressionList", "reason": "previous_bounce", "diagnosticCode": [],
            "message": "The recipient is on the account's suppression list.",
        }
    },
}  # fmt: skip


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
