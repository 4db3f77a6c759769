"""The quote and the send, as a frontend asks for them: POST with the sender's token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import urllib3

from infra.local.demo import scene, texts
from infra.local.demo.options import CHANNELS
from infra.local.demo.scene import Scene
from infra.local.settings import LocalStackError, Settings
from shared import clock

TIMEOUT_SECONDS = 180.0


@dataclass(slots=True, frozen=True)
class Sent:
    """The answers of both calls and what they took. `begun_at` is the send's instant in epoch seconds."""

    quote: dict[str, Any]
    answer: dict[str, Any]
    quote_seconds: float
    send_seconds: float
    begun_at: float


def send(settings: Settings, setting: Scene) -> Sent:
    """Quote one urgent alert to everybody, grant what it costs, send it. Raises LocalStackError when refused."""
    alert = {
        "organisation_id": str(setting.organisation_id),
        "alert_id": str(clock.system.uuid7()),
        "title": texts.TITLE,
        "severity": "urgent",
        "channels": list(CHANNELS),
        "template_id": str(setting.template_id),
        "group_ids": list(setting.group_ids.values()),
        "variables": texts.VARIABLES,
    }
    token = setting.members["sender"].token
    quote, quote_seconds = _post(settings, "/quote", token, alert)
    scene.grant(settings, setting.organisation_id, _with_reserve(quote["credits"]))
    begun_at = time.time()
    answer, send_seconds = _post(settings, "/", token, alert)
    return Sent(quote, answer, quote_seconds, send_seconds, begun_at)


def _with_reserve(credits_quoted: int) -> int:
    """A tenth more than the quote, so that the account keeps something."""
    return credits_quoted + credits_quoted // 10 + 1


def _post(settings: Settings, path: str, token: str, alert: dict[str, Any]) -> tuple[dict[str, Any], float]:
    headers = {"apikey": settings.secrets.publishable_key, "Authorization": f"Bearer {token}"}
    begun = time.monotonic()
    try:
        reply = urllib3.request(
            "POST",
            f"{settings.functions_url}/send-alert{path}",
            json=alert,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            retries=False,
        )
    except urllib3.exceptions.HTTPError as error:
        raise LocalStackError(f"send-alert did not answer: {error}") from error
    took_seconds = time.monotonic() - begun
    if reply.status >= 300:
        raise LocalStackError(
            f"send-alert{path} answered {reply.status}: {reply.data[:500].decode(errors='replace')}"
        )
    answer: dict[str, Any] = reply.json()
    return answer, took_seconds
