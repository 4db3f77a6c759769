"""Twilio's callbacks: a signed form, and the retry policy that a URL's fragment asks for.

Sources: https://www.twilio.com/docs/usage/webhooks/webhooks-security (signature) and
https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides (`#rc=5&rp=all`; it is not signed).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import parse_qs, urlencode

from infra.local.carriers.callbacks import Job, Outgoing
from infra.local.carriers.signing import sign_twilio
from infra.local.carriers.world import World

Fields = dict[str, str]
MAXIMUM_RETRIES = 5
_EVERY_REASON = frozenset({"ct", "rt", "4xx", "5xx"})


def overrides(url: str) -> tuple[str, int, frozenset[str]]:
    """A callback URL without its fragment, how often to repeat it (0 to 5, else 1), on what (else `ct`)."""
    bare, _, fragment = url.partition("#")
    return bare, *_policy(fragment)


@lru_cache(maxsize=64)
def _policy(fragment: str) -> tuple[int, frozenset[str]]:
    asked = parse_qs(fragment)
    count = asked.get("rc", ["1"])[0]
    reasons = frozenset(reason for value in asked.get("rp", []) for reason in value.split(","))
    retry_on = _EVERY_REASON if "all" in reasons else reasons & _EVERY_REASON or frozenset({"ct"})
    return int(count) if count.isdecimal() and int(count) <= MAXIMUM_RETRIES else 1, retry_on


def job(world: World, kind: str, url: str, fields: Callable[[], Fields]) -> Job:
    """A callback that is built and signed when it is posted."""
    bare, retries, retry_on = overrides(url)
    token = secrets.token_hex(16)

    def build() -> Outgoing:
        form = fields()
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "User-Agent": "TwilioProxy/1.1",
            "Accept": "*/*",
            "I-Twilio-Idempotency-Token": token,
            "X-Twilio-Signature": sign_twilio(world.settings.auth_token, bare, form),
        }
        return headers, urlencode(form).encode()

    return Job(kind, bare, build, retries, retry_on)
