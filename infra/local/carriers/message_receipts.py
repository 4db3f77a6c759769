"""What becomes of an SMS, and the status callbacks that tell of it.

Source: https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
"""

from __future__ import annotations

from infra.local.carriers import twilio_callbacks
from infra.local.carriers.callbacks import Job
from infra.local.carriers.receipts import spread
from infra.local.carriers.records import Message
from infra.local.carriers.twilio import VERSION
from infra.local.carriers.world import World

_FAILS, _WHY = range(2)
# Unreachable handset, blocked, unknown destination, landline or unreachable carrier, unknown error.
UNDELIVERED_CODES = (30003, 30004, 30005, 30006, 30008)


def foresee(world: World, message: Message) -> None:
    """Decide when this message is queued, sent and final, and how it ends."""
    knobs = world.board.of["sms"]
    step_seconds = knobs.receipt_delay_ms / 1000
    message.queued_at = message.created_at + step_seconds / 2
    message.sent_at = message.created_at + step_seconds
    message.final_at = message.created_at + 2 * step_seconds
    if knobs.rate_undelivered > 0:
        draws = world.chance.draw("outcome", "sms", message.to)
        if draws[_FAILS] < knobs.rate_undelivered:
            message.final_status = "undelivered"
            message.error_code = UNDELIVERED_CODES[int(draws[_WHY] * len(UNDELIVERED_CODES))]


def tell(world: World, message: Message) -> None:
    """Schedule the callbacks: queued (from a messaging service), sent, and the final one."""
    url = message.callback
    if url is None or world.board.of["sms"].receipts == "off":
        return
    final = receipt(world, message, url, message.final_status, message.error_code)
    told = [
        (message.sent_at - message.created_at, receipt(world, message, url, "sent")),
        (message.final_at - message.created_at, final),
    ]
    if message.service:
        told.insert(0, (message.queued_at - message.created_at, receipt(world, message, url, "queued")))
    spread(world, "sms", message.to, told)


def receipt(world: World, message: Message, url: str, status: str, error_code: int | None = None) -> Job:
    """One status callback, to the message's own `url`."""

    def fields() -> twilio_callbacks.Fields:
        form = {
            "AccountSid": world.settings.account_sid, "ApiVersion": VERSION, "To": message.to,
            "From": message.sender or "+15005550006", "MessageSid": message.sid, "MessageStatus": status,
            "SmsSid": message.sid, "SmsStatus": status,
        }  # fmt: skip
        if message.service:
            form["MessagingServiceSid"] = message.service
        if error_code is not None:
            form["ErrorCode"] = str(error_code)
        return form

    return twilio_callbacks.job(world, "sms", url, fields)
