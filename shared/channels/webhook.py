"""Customers' endpoints: Standard Webhooks, signed with the endpoint's own secret, on the public internet.

The receiver drops what it has seen by `webhook-id`, which is the delivery id and stays the same, so an
outcome in doubt may be sent again. Source:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from shared import clock
from shared.channels import Accepted, Adapter, Message, Outcome
from shared.errors import SendError
from shared.signatures import WebhookSigner
from shared.values import Channel, FailureClass, parse_delivery_id

if TYPE_CHECKING:
    from shared.outbound import Outbound
    from shared.settings import ChannelSettings

TYPE = "alert.delivery"
ENDPOINT_GONE = "endpoint_gone"


def failure_class(status: int) -> FailureClass:
    """What an answer that is not 2xx means. A 5xx may come after the message was taken: the same id goes out again."""
    if status == 429:
        return FailureClass.THROTTLE
    if status >= 500:
        return FailureClass.UNKNOWN
    return FailureClass.TRANSIENT if status in (408, 425) else FailureClass.PERMANENT


class Webhook:
    """The dialect of Standard Webhooks."""

    channel = Channel.WEBHOOK
    batch_size = 1
    reconciles_by_resending = True

    def __init__(self, outbound: Outbound, settings: ChannelSettings, now: clock.Clock) -> None:
        self._outbound = outbound
        self._signer = WebhookSigner(settings.webhook_signing_key)
        self._clock = now

    async def send(self, messages: Sequence[Message], key: str) -> list[Outcome]:
        """One request a message; its delivery id is the key."""
        return [await self._send_one(message) for message in messages]

    async def _send_one(self, message: Message) -> Outcome:
        try:
            body, timestamp = self._body(message), int(self._clock.epoch())
            signed = self._signer.headers(
                message.organisation_id, message.to, message.delivery_id, timestamp, body
            )
            headers = {"Content-Type": "application/json", **signed}
            answer = await self._outbound.post_guarded(message.to, body, headers)
        except SendError as error:
            return error
        if 200 <= answer.status < 300:
            return Accepted(message.delivery_id)
        code = ENDPOINT_GONE if answer.status == 410 else f"http_{answer.status}"
        return SendError(
            failure_class(answer.status), code, retry_after_seconds=answer.retry_after_seconds(self._clock)
        )

    async def look_up(self, message: Message, since: float) -> Accepted | None:
        """Never an answer: see `reconciles_by_resending`."""
        raise SendError(FailureClass.UNKNOWN, "send_again_to_know")

    def _body(self, message: Message) -> bytes:
        alert_id, _ = parse_delivery_id(message.delivery_id)
        data = {
            "alert_id": str(alert_id),
            "delivery_id": message.delivery_id,
            "subject": message.subject,
            "body": message.body,
            "language": message.language,
        }
        timestamp = self._clock.now().isoformat(timespec="seconds").replace("+00:00", "Z")
        try:
            return orjson.dumps({"type": TYPE, "timestamp": timestamp, "data": data})
        except TypeError:  # a text that is not Unicode
            raise SendError(FailureClass.CONTENT, "text_invalid") from None


def connect(outbound: Outbound, settings: ChannelSettings, now: clock.Clock = clock.system) -> Adapter:
    """The adapter for customers' endpoints."""
    return Webhook(outbound, settings, now)
