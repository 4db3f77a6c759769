"""Signatures as the providers make them: Twilio's over URL and form, Svix's over id, time and body."""

from __future__ import annotations

import base64
import hmac
import secrets
import string
from collections.abc import Mapping
from hashlib import sha1, sha256

_ALPHABET = string.ascii_letters + string.digits


def sign_twilio(auth_token: str, url: str, fields: Mapping[str, str]) -> str:
    """X-Twilio-Signature. `url` is the whole URL with its query and without its fragment.

    Source: https://www.twilio.com/docs/usage/webhooks/webhooks-security
    """
    text = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.digest(auth_token.encode(), text.encode(), sha1)).decode()


def sign_svix(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """svix-signature, version 1. Source: https://docs.svix.com/receiving/verifying-payloads/how-manual"""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, sha256)).decode()


def new_svix_id() -> str:
    """A message id in Svix's form; the same one comes with every repeat of an event."""
    return "msg_" + "".join(secrets.choice(_ALPHABET) for _ in range(27))
