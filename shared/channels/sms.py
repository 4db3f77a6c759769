"""Texts through Twilio: one message a request, receipts by callback, doubtful outcomes looked up in its list.

Source: https://www.twilio.com/docs/messaging/api/message-resource
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from shared import clock
from shared.channels import Accepted, Adapter, Message, Outcome
from shared.errors import SendError
from shared.twilio_rest import FORM_TABLE, Callbacks, TwilioRest
from shared.values import Channel, FailureClass

if TYPE_CHECKING:
    from shared.outbound import Outbound
    from shared.settings import ChannelSettings

LONGEST_BODY = 1600
LONGEST_VALIDITY_SECONDS = 36_000


class Sms:
    """Twilio's dialect for texts."""

    channel = Channel.SMS
    batch_size = 1
    reconciles_by_resending = False

    def __init__(self, outbound: Outbound, settings: ChannelSettings, now: clock.Clock) -> None:
        self._rest = TwilioRest(outbound, settings, "Messages", "SM MM")
        self._callbacks = Callbacks(settings, "message")
        self._prefix = urlencode({"MessagingServiceSid": settings.twilio_messaging_service_sid})
        self._clock = now

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        """One request a message. Twilio has no idempotency key, so `key` is not used."""
        return [await self._send_one(message) for message in messages]

    async def _send_one(self, message: Message) -> Outcome:
        try:
            return Accepted(await self._rest.create(self._form(message)))
        except SendError as error:
            return error

    def _form(self, message: Message) -> bytes:
        if not message.body.strip():
            raise SendError(FailureClass.CONTENT, "body_empty")
        if len(message.body) > LONGEST_BODY:
            raise SendError(FailureClass.CONTENT, "body_too_long")
        to, body = message.to.translate(FORM_TABLE), message.body.translate(FORM_TABLE)
        callback = self._callbacks.encoded(message.delivery_id, message.attempt)
        form = f"{self._prefix}&To={to}&Body={body}&StatusCallback={callback}"
        if message.expires_at is not None:
            left_seconds = int(message.expires_at - self._clock.epoch())
            form += f"&ValidityPeriod={min(max(left_seconds, 1), LONGEST_VALIDITY_SECONDS)}"
        return form.encode()

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        """The newest text of ours to that number with that body."""

        def fits(row: Mapping[str, Any]) -> bool:
            ours = str(row.get("direction", "")).startswith("outbound")
            return ours and str(row.get("body", "")).strip() == message.body.strip()

        found = await self._rest.newest(message.to, since, "DateSent", fits)
        return Accepted(found) if found else None


def connect(outbound: Outbound, settings: ChannelSettings, now: clock.Clock = clock.system) -> Adapter:
    """The adapter for texts."""
    return Sms(outbound, settings, now)
