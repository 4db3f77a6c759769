"""Signed callbacks as Twilio makes them, one for each delivery of an alert, as raw HTTP requests."""

from __future__ import annotations

from urllib.parse import urlencode

from infra.bench.scene import Scene
from infra.local import functions
from infra.local.carriers.signing import sign_twilio
from shared.settings import ChannelSettings
from shared.twilio_rest import Callbacks

_IDS = """
select replace(alert_id::text, '-', '') || '-' || number, provider_id
from public.deliveries
where alert_id = %s and provider_id is not null
order by number
"""


def prepare(scene: Scene, alert_id: str, status: str) -> list[bytes]:
    """One POST for each delivery that was handed over: its message is now `status`."""
    rows: list[tuple[str, str]] = scene.sql.execute(_IDS.encode(), (alert_id,)).fetchall()
    return [one(scene, delivery_id, provider_id, status) for delivery_id, provider_id in rows]


def one(scene: Scene, delivery_id: str, provider_id: str, status: str) -> bytes:
    """The request as it reaches the function: the gateway has taken /functions/v1/delivery-webhook away."""
    settings, secrets = scene.settings, scene.settings.secrets
    url = Callbacks(ChannelSettings.read(functions.environment(settings)), "message").url(delivery_id, 1)
    signed_url = url.partition("#")[0]
    fields = {
        "AccountSid": secrets.twilio_account_sid,
        "ApiVersion": "2010-04-01",
        "From": "+33644630000",
        "MessageSid": provider_id,
        "MessageStatus": status,
        "SmsSid": provider_id,
        "SmsStatus": status,
        "To": "+33612345678",
    }
    target = signed_url.removeprefix(f"{settings.functions_url}/delivery-webhook")
    return request(
        target,
        urlencode(fields).encode(),
        {
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": "TwilioProxy/1.1",
            "X-Twilio-Signature": sign_twilio(secrets.twilio_auth_token, signed_url, fields),
        },
    )


def request(target: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST as it goes over the wire."""
    lines = [f"POST {target} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
