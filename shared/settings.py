"""Settings from the environment, checked when a function starts: a missing or unsafe one stops it.

Each function reads only the groups that it needs. No error ever shows a value.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import SplitResult, urlsplit

from shared.errors import SettingsError

Environment = Mapping[str, str]
OWN_SECRET_LENGTH = 32  # secrets that we choose
ISSUED_SECRET_LENGTH = 16  # secrets that a provider chose: theirs are longer, a shorter one is a slip
SIGNING_KEY_BYTES = 24  # the least that Standard Webhooks allows


def present() -> Environment:
    """The environment that this process runs in: nothing else reads it."""
    return os.environ


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Reader:
    """One environment, read by name with the checks that a value's kind needs."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def given(self, name: str) -> bool:
        return name in self._environment

    def text(self, name: str, *, default: str | None = None, pattern: str = "", shape: str = "") -> str:
        value = self._environment.get(name, default)
        if value is None:
            raise SettingsError(f"{name} is missing")
        if not value.strip():
            raise SettingsError(f"{name} is empty")
        if value != value.strip() or any(ord(character) < 32 for character in value):
            raise SettingsError(f"{name} begins or ends with a space, or holds a control character")
        if pattern and re.fullmatch(pattern, value) is None:
            raise SettingsError(f"{name} is not {shape}")
        return value

    def secret(self, name: str, *, at_least: int = OWN_SECRET_LENGTH) -> str:
        value = self.text(name)
        if len(value) < at_least:
            raise SettingsError(f"{name} is shorter than {at_least} characters")
        if len(set(value)) < 6:
            raise SettingsError(f"{name} is a repetition, not a secret")
        return value

    def url(self, name: str, *, default: str | None = None) -> str:
        """An absolute base URL without its last slash. Plain http only to a loopback host."""
        value = self.text(name, default=default)
        try:
            parts = urlsplit(value)
            _ = parts.port
        except ValueError:
            raise SettingsError(f"{name} is not a URL") from None
        self._check_url(name, parts)
        return value.rstrip("/")

    def _check_url(self, name: str, parts: SplitResult) -> None:
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"{name} is not an absolute http(s) URL")
        if parts.scheme == "http" and not _loopback(parts.hostname):
            raise SettingsError(f"{name} must use https: plain http is for loopback hosts only")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise SettingsError(f"{name} must hold no user, query or fragment")

    def number(self, name: str, default: int, *, lowest: int, highest: int) -> int:
        text = self.text(name, default=str(default), pattern=r"[0-9]{1,6}", shape="a whole number")
        if not lowest <= int(text) <= highest:
            raise SettingsError(f"{name} is not between {lowest} and {highest}")
        return int(text)

    def rotating(self, name: str, previous: str, *, at_least: int) -> tuple[str, ...]:
        """The secret in force and, while one rotates, the one before it."""
        secrets = (self.secret(name, at_least=at_least),)
        return (*secrets, self.secret(previous, at_least=at_least)) if self.given(previous) else secrets


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How to reach PostgREST. `api_key`: the publishable key for members' calls, the secret one for ours."""

    rest_url: str
    api_key: str = field(repr=False)
    timeout_seconds: int

    @classmethod
    def read(cls, identity: Literal["member", "service"], environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        name = "SUPABASE_PUBLISHABLE_KEY" if identity == "member" else "SUPABASE_SECRET_KEY"
        return cls(
            rest_url=f"{reader.url('SUPABASE_URL')}/rest/v1",
            api_key=reader.secret(name, at_least=ISSUED_SECRET_LENGTH),
            timeout_seconds=reader.number("DATABASE_TIMEOUT_SECONDS", 60, lowest=1, highest=600),
        )


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """How members' tokens are verified. `jwt_secret` is the HS256 secret of an older project, or None."""

    jwks_url: str
    issuer: str
    jwt_secret: str | None = field(repr=False)

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        base = reader.url("SUPABASE_URL")
        old = reader.given("SUPABASE_JWT_SECRET")
        return cls(
            jwks_url=reader.url("SUPABASE_JWKS_URL", default=f"{base}/auth/v1/.well-known/jwks.json"),
            issuer=reader.url("SUPABASE_JWT_ISSUER", default=f"{base}/auth/v1"),
            jwt_secret=reader.secret("SUPABASE_JWT_SECRET") if old else None,
        )


@dataclass(frozen=True, slots=True)
class WebSettings:
    """The browser origins that may call a function, e.g. "https://console.example.com https://example.com"."""

    cors_origins: frozenset[str]

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        if not reader.given("CORS_ORIGINS"):
            return cls(frozenset())
        origins = reader.text("CORS_ORIGINS").split()
        checked = {_Reader({"CORS_ORIGINS": origin}).url("CORS_ORIGINS") for origin in origins}
        if any(urlsplit(origin).path for origin in checked):
            raise SettingsError("CORS_ORIGINS must hold origins: scheme, host and port, no path")
        return cls(frozenset(checked))


def webhook_signing_key(environment: Environment = os.environ) -> str:
    """What the secrets of customers' endpoints are derived from; they are stored nowhere. Raises SettingsError."""
    return _Reader(environment).secret("WEBHOOK_SIGNING_KEY")


def _local_sink(reader: _Reader) -> str | None:
    """The one http origin that the SSRF guard lets through on a developer's machine, never in production."""
    if not reader.given("WEBHOOK_LOCAL_SINK"):
        return None
    sink = reader.url("WEBHOOK_LOCAL_SINK")
    parts = urlsplit(sink)
    if parts.scheme != "http" or parts.path:
        raise SettingsError("WEBHOOK_LOCAL_SINK must be an http origin on loopback: scheme, host and port")
    if not _loopback(urlsplit(reader.url("SUPABASE_URL")).hostname or ""):
        raise SettingsError("WEBHOOK_LOCAL_SINK is only for a local stack: SUPABASE_URL is not on loopback")
    return sink


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """What the channel adapters need to speak to the providers."""

    twilio_base_url: str
    twilio_account_sid: str
    twilio_auth_token: str = field(repr=False)
    twilio_messaging_service_sid: str
    twilio_voice_from: str
    resend_base_url: str
    resend_api_key: str = field(repr=False)
    resend_from: str
    functions_url: str
    link_secret: str = field(repr=False)
    webhook_signing_key: str = field(repr=False)
    webhook_local_sink: str | None
    provider_timeout_seconds: int

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        return cls(
            twilio_base_url=reader.url("TWILIO_BASE_URL", default="https://api.twilio.com"),
            twilio_account_sid=reader.text(
                "TWILIO_ACCOUNT_SID", pattern="AC[0-9a-f]{32}", shape="AC and 32 hexadecimal digits"
            ),
            twilio_auth_token=reader.secret("TWILIO_AUTH_TOKEN", at_least=ISSUED_SECRET_LENGTH),
            twilio_messaging_service_sid=reader.text(
                "TWILIO_MESSAGING_SERVICE_SID", pattern="MG[0-9a-f]{32}", shape="MG and 32 hexadecimal digits"
            ),
            twilio_voice_from=reader.text(
                "TWILIO_VOICE_FROM", pattern=r"\+[1-9][0-9]{6,14}", shape="a number in E.164 form"
            ),
            resend_base_url=reader.url("RESEND_BASE_URL", default="https://api.resend.com"),
            resend_api_key=reader.secret("RESEND_API_KEY", at_least=ISSUED_SECRET_LENGTH),
            resend_from=reader.text("RESEND_FROM", pattern=r"[^@]+@[^@]+", shape="an e-mail address"),
            functions_url=_functions_url(reader),
            link_secret=reader.secret("LINK_SECRET"),
            webhook_signing_key=reader.secret("WEBHOOK_SIGNING_KEY"),
            webhook_local_sink=_local_sink(reader),
            provider_timeout_seconds=reader.number("PROVIDER_TIMEOUT_SECONDS", 10, lowest=1, highest=60),
        )


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """What it takes to check that a callback came from whom it says. Newest secret first in each tuple."""

    functions_url: str
    twilio_auth_tokens: tuple[str, ...] = field(repr=False)
    resend_webhook_secrets: tuple[str, ...] = field(repr=False)
    link_secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        resend = reader.rotating(
            "RESEND_WEBHOOK_SECRET", "RESEND_WEBHOOK_SECRET_PREVIOUS", at_least=ISSUED_SECRET_LENGTH
        )
        for secret in resend:
            _check_signing_secret("RESEND_WEBHOOK_SECRET", secret)
        return cls(
            functions_url=_functions_url(reader),
            twilio_auth_tokens=reader.rotating(
                "TWILIO_AUTH_TOKEN", "TWILIO_AUTH_TOKEN_PREVIOUS", at_least=ISSUED_SECRET_LENGTH
            ),
            resend_webhook_secrets=resend,
            link_secrets=reader.rotating("LINK_SECRET", "LINK_SECRET_PREVIOUS", at_least=OWN_SECRET_LENGTH),
        )


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """How long a dispatcher works, how many run at once, and the secret that lets one be started."""

    secret: str = field(repr=False)
    budget_seconds: int
    max_workers: int
    in_flight: int
    lease_seconds: int
    dispatch_url: str

    @classmethod
    def read(cls, environment: Environment = os.environ) -> Self:
        reader = _Reader(environment)
        return cls(
            secret=reader.secret("DISPATCH_SECRET"),
            budget_seconds=reader.number("DISPATCH_BUDGET_SECONDS", 50, lowest=1, highest=3600),
            max_workers=reader.number("DISPATCH_MAX_WORKERS", 4, lowest=1, highest=1000),
            in_flight=reader.number("DISPATCH_IN_FLIGHT", 50, lowest=1, highest=1000),
            lease_seconds=_lease_seconds(reader),
            dispatch_url=f"{_functions_url(reader)}/dispatch-deliveries",
        )


def _lease_seconds(reader: _Reader) -> int:
    """Longer than two provider calls: a batch that is being sent is never taken for one that was left behind."""
    call_seconds = reader.number("PROVIDER_TIMEOUT_SECONDS", 10, lowest=1, highest=60)
    return reader.number("DISPATCH_LEASE_SECONDS", 3 * call_seconds, lowest=2 * call_seconds + 1, highest=600)


def _functions_url(reader: _Reader) -> str:
    if reader.given("FUNCTIONS_URL"):
        return reader.url("FUNCTIONS_URL")
    return f"{reader.url('SUPABASE_URL')}/functions/v1"


def _check_signing_secret(name: str, secret: str) -> None:
    """Standard Webhooks: `whsec_` and the base64 of 24 bytes or more. An empty key would sign anything."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or len(key) < SIGNING_KEY_BYTES:
        raise SettingsError(f"{name} is not whsec_ and the base64 of at least {SIGNING_KEY_BYTES} bytes")
