"""The naive way, for comparison: a loop over the official SDKs, one recipient at a time, nothing recorded."""

from __future__ import annotations

import time
from typing import Any

from infra.bench import audience, bodies
from infra.bench.figures import Figure
from infra.bench.scene import Scene

MANY = 500
QUICK_MANY = 10
TWILIO = "https://api.twilio.com"


def measure(scene: Scene, *, quick: bool) -> list[Figure]:
    """Texts with twilio's client and e-mails with resend's, at the same stand-in."""
    many = QUICK_MANY if quick else MANY
    scene.carriers.knobs(all={"receipts": "off"})
    made = audience.make(scene.sql, scene.owner_id, many, plain=True)
    alert_id, _ = scene.send(made)
    messages = bodies.messages(scene, alert_id)
    scene.report(f"naive: {len(messages):,} texts and e-mails, one by one")
    return [
        _figure("naive_sms", len(messages), _texts(scene, messages)),
        _figure("naive_email", len(messages), _emails(scene, messages)),
    ]


def _figure(name: str, many: int, seconds: float) -> Figure:
    return Figure(name, "messages/s", many / seconds, details={"messages": many, "seconds": seconds})


def _texts(scene: Scene, messages: list[Any]) -> float:
    from twilio.http.http_client import TwilioHttpClient
    from twilio.rest import Client

    base = scene.settings.carriers_url

    class Local(TwilioHttpClient):  # type: ignore[misc]
        """The SDK's own client, sent to the stand-in."""

        def request(self, method: str, url: str, *arguments: Any, **named: Any) -> Any:
            return super().request(method, url.replace(TWILIO, base, 1), *arguments, **named)

    secrets = scene.settings.secrets
    client = Client(secrets.twilio_account_sid, secrets.twilio_auth_token, http_client=Local())
    service = f"MG{secrets.twilio_account_sid[2:]}"
    begun = time.perf_counter()
    for message in messages:
        client.messages.create(to=message.to, messaging_service_sid=service, body=message.body)
    return time.perf_counter() - begun


def _emails(scene: Scene, messages: list[Any]) -> float:
    import resend

    resend.api_key = scene.settings.secrets.resend_api_key
    resend.api_url = scene.settings.carriers_url
    begun = time.perf_counter()
    for number, message in enumerate(messages):
        resend.Emails.send(
            {
                "from": "CredoAlert <alerts@credoalert.example>",
                "to": [f"person-{number}@example.com"],
                "subject": "Flood",
                "text": message.body,
            }
        )
    return time.perf_counter() - begun
