"""Settings of the stand-in carriers, read once from the environment."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass

_ACCOUNT = re.compile(r"AC[0-9a-fA-F]{32}")
MINIMUM_SECRET_CHARACTERS = 8


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and never holds its value."""


@dataclass(slots=True, frozen=True)
class Settings:
    """Whose account the carriers play, where their callbacks go, how they misbehave at first."""

    account_sid: str
    auth_token: str
    resend_api_key: str
    resend_webhook_secret: bytes  # decoded from whsec_<base64>; empty: no e-mail callbacks
    resend_webhook_url: str  # empty: no e-mail callbacks
    inbound_url: str  # empty: inbound messages cannot be simulated
    faults: str = "none"
    seed: int = 7
    journal_file: str = ""
    journal_rows: int = 1_000_000
    callbacks_in_flight: int = 32


def load(environment: Mapping[str, str]) -> Settings:
    """Read the settings. Raises SettingsError that names the first one that is missing or wrong."""
    return Settings(
        account_sid=_account(environment),
        auth_token=_secret(environment, "TWILIO_AUTH_TOKEN"),
        resend_api_key=_secret(environment, "RESEND_API_KEY"),
        resend_webhook_secret=_webhook_secret(environment.get("RESEND_WEBHOOK_SECRET", "")),
        resend_webhook_url=_address(environment, "RESEND_WEBHOOK_URL"),
        inbound_url=_address(environment, "TWILIO_INBOUND_URL"),
        faults=environment.get("CARRIERS_FAULTS", "none"),
        seed=_whole_number(environment, "CARRIERS_SEED", 7, minimum=0),
        journal_file=environment.get("CARRIERS_JOURNAL_FILE", ""),
        journal_rows=_whole_number(environment, "CARRIERS_JOURNAL_ROWS", 1_000_000, minimum=1),
        callbacks_in_flight=_whole_number(environment, "CARRIERS_CALLBACKS_IN_FLIGHT", 32, minimum=1),
    )


def _account(environment: Mapping[str, str]) -> str:
    value = environment.get("TWILIO_ACCOUNT_SID", "")
    if not _ACCOUNT.fullmatch(value):
        raise SettingsError("TWILIO_ACCOUNT_SID must be AC and 32 hexadecimal digits")
    return value


def _secret(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if len(value) < MINIMUM_SECRET_CHARACTERS:
        raise SettingsError(f"{name} must have at least {MINIMUM_SECRET_CHARACTERS} characters")
    return value


def _webhook_secret(value: str) -> bytes:
    if not value:
        return b""
    try:
        secret = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not value.startswith("whsec_") or len(secret) < 16:
        raise SettingsError("RESEND_WEBHOOK_SECRET must be whsec_ and the base64 of at least 16 bytes")
    return secret


def _address(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if value and not value.startswith(("http://", "https://")):
        raise SettingsError(f"{name} must be an http or https URL")
    return value


def _whole_number(environment: Mapping[str, str], name: str, default: int, *, minimum: int) -> int:
    value = environment.get(name, "")
    if not value:
        return default
    if not value.isdecimal() or int(value) < minimum:
        raise SettingsError(f"{name} must be a whole number of at least {minimum}")
    return int(value)
