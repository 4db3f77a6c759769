"""What the adapters' tests share: settings, people, recorded answers and one exchange with a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.channels import Accepted, Adapter, Message, Outcome
from shared.clock import FrozenClock
from shared.errors import SendError
from shared.outbound import Outbound
from shared.settings import ChannelSettings
from shared.values import FailureClass
from tests.shared.raw_server import Behaviour, Received, answer, answering, serve

ALICE, BOB = "+33612345678", "+447700900123"
ORGANISATION = "0198c0de-0000-7000-8000-0000000000aa"
ALERT = "0198c0de000070008000000000000001"
ACCOUNT, SERVICE = "AC" + "0123456789abcdef" * 2, "MG" + "fedcba9876543210" * 2
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
FUNCTIONS_URL = "https://project.supabase.co/functions/v1"

Connect = Callable[[Outbound, ChannelSettings], Adapter]


def channel_settings(base_url: str, **changes: str | None) -> ChannelSettings:
    """Good settings whose providers are all at `base_url`."""
    environment = {
        "SUPABASE_URL": "http://127.0.0.1:54321", "FUNCTIONS_URL": FUNCTIONS_URL,
        "TWILIO_BASE_URL": base_url, "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": "0123456789abcdef0123456789abcdef", "TWILIO_MESSAGING_SERVICE_SID": SERVICE,
        "TWILIO_VOICE_FROM": "+15005550006", "RESEND_BASE_URL": base_url, "RESEND_API_KEY": "re_123456789_abcdefghij",
        "RESEND_FROM": "Alerts <alerts@credoalert.com>", "LINK_SECRET": "alice-keeps-this-secret-very-well-1",
        "WEBHOOK_SIGNING_KEY": "our-own-signing-key-of-forty-characters!", "WEBHOOK_LOCAL_SINK": base_url,
    }  # fmt: skip
    environment.update({name: value for name, value in changes.items() if value is not None})
    return ChannelSettings.read(environment)


def message(number: int = 1, to: str = ALICE, **changes: object) -> Message:
    """A message to alice, unless it says otherwise."""
    values: dict[str, object] = {
        "delivery_id": f"{ALERT}-{number}", "organisation_id": ORGANISATION, "attempt": 1, "to": to,
        "language": "fr", "subject": "Crue", "body": "Évacuez le quai + la rue & le pont = 1 %", **changes,
    }  # fmt: skip
    return Message(**values)  # type: ignore[arg-type]


@dataclass(slots=True)
class Exchange:
    """What came of it, and what the server was asked."""

    outcomes: list[Outcome]
    requests: list[Received]


def exchange(
    connect: Connect,
    behaviour: Behaviour | bytes,
    messages: Sequence[Message] = (),
    *,
    key: str = "chunk-1",
    timeout_seconds: float = 2.0,
) -> Exchange:
    """Send once through an adapter to a server that behaves so (bytes: gives this answer)."""
    told = answering(behaviour) if isinstance(behaviour, bytes) else behaviour

    async def run() -> Exchange:
        async with serve(told) as server:
            settings = channel_settings(server.url)
            async with Outbound(timeout_seconds=timeout_seconds, local_sink=server.url) as outbound:
                adapter = connect(outbound, settings)
                outcomes = await adapter.send(list(messages) or [message()], key)
            return Exchange(outcomes, server.requests)

    return asyncio.run(run())


def looked_up(
    connect: Connect, since: float, *answers: bytes
) -> tuple[Accepted | SendError | None, list[Received]]:
    """What `look_up` makes of a provider's answers, given in turn."""

    async def run() -> tuple[Accepted | SendError | None, list[Received]]:
        async with serve(answering(*answers)) as server, Outbound(timeout_seconds=2) as outbound:
            adapter = connect(outbound, channel_settings(server.url))
            try:
                return await adapter.look_up(message(), since), server.requests
            except SendError as error:
                return error, server.requests

    return asyncio.run(run())


def failure_of(outcome: Accepted | SendError | None) -> tuple[FailureClass, str]:
    assert isinstance(outcome, SendError), outcome
    return outcome.failure_class, outcome.code


def json_answer(status: int, document: object, **headers: str) -> bytes:
    return answer(status, json.dumps(document), Content_Type="application/json", **headers)


def twilio_error(code: int, status: int = 400, **headers: str) -> bytes:
    """An error as Twilio writes it (https://www.twilio.com/docs/usage/twilios-response)."""
    document = {
        "code": code, "message": f"The 'To' number {ALICE} ...", "status": status,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
    }  # fmt: skip
    return json_answer(status, document, **headers)


def resend_error(status: int, name: str, **headers: str) -> bytes:
    """An error as Resend writes it (https://resend.com/docs/api-reference/errors)."""
    return json_answer(status, {"statusCode": status, "message": "...", "name": name}, **headers)


def frozen() -> FrozenClock:
    return FrozenClock(NOW)
