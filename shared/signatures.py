"""Signatures: our own links, Twilio's and Resend's callbacks, and the webhooks that we send.

Every secret is refused when it is empty or short, because an empty one validates forgeries; every
comparison takes the same time for any wrong answer; several secrets may be in force while one rotates, the
newest first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from shared import clock
from shared.errors import SettingsError

OWN_SECRET_LENGTH = 32
ISSUED_SECRET_LENGTH = 16
_MAC_BYTES = 18  # 144 bits are 24 characters of base64 with no slack bits, so a signature has one spelling
_LINK = re.compile(r"(?:([1-9][0-9]{0,11})\.)?[A-Za-z0-9_-]{24}")
_SVIX_TIMESTAMP = re.compile(r"[1-9][0-9]{0,11}")
_SVIX_ID = re.compile(r"[!-~]{1,256}")
_SVIX_SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{43}=")
_LONGEST_HEADER = 4096


def _checked(name: str, secrets: Sequence[str], at_least: int) -> tuple[str, ...]:
    if not secrets or any(len(secret.strip()) < at_least for secret in secrets):
        raise SettingsError(f"A secret for {name} is missing or shorter than {at_least} characters")
    return tuple(secrets)


class LinkSigner:
    """Signs what we hand out and get back: callback URLs and public links. HMAC-SHA256, one key a purpose.

    `secrets`: the one in force first, then those that still verify. Raises SettingsError for a short one.
    """

    def __init__(self, *secrets: str, now: clock.Clock = clock.system) -> None:
        self._secrets = tuple(secret.encode() for secret in _checked("links", secrets, OWN_SECRET_LENGTH))
        self._clock = now
        self._keys: dict[str, tuple[bytes, ...]] = {}

    def sign_link(self, purpose: str, *parts: str | int, expires_at: int | None = None) -> str:
        """A URL-safe signature over the parts; `expires_at` (epoch seconds) is carried and covered."""
        prefix = "" if expires_at is None else f"{int(expires_at)}."
        return prefix + _mac(self._keys_of(purpose)[0], prefix, parts)

    def verify_link(self, signature: str, purpose: str, *parts: str | int) -> bool:
        """Whether `sign_link` made this for this purpose and these parts, and it has not expired."""
        match = _LINK.fullmatch(signature)
        if match is None:
            return False
        prefix = f"{match[1]}." if match[1] else ""
        given = signature.encode()
        fits = False
        for key in self._keys_of(purpose):
            fits |= hmac.compare_digest(given, (prefix + _mac(key, prefix, parts)).encode())
        return fits and (match[1] is None or self._clock.epoch() < int(match[1]))

    def _keys_of(self, purpose: str) -> tuple[bytes, ...]:
        keys = self._keys.get(purpose)
        if keys is None:
            label = f"credoalert link {purpose}".encode()
            keys = tuple(hmac.digest(secret, label, "sha256") for secret in self._secrets)
            self._keys[purpose] = keys
        return keys


def _mac(key: bytes, prefix: str, parts: Sequence[str | int]) -> str:
    texts = [str(part) for part in parts]
    # each part with its length, so that no two lists of parts are the same text
    signed = prefix + "".join([f"{len(text)}:{text}," for text in texts])
    mac = hmac.digest(key, signed.encode("utf-8", "surrogatepass"), "sha256")[:_MAC_BYTES]
    return base64.urlsafe_b64encode(mac).decode()


class _Form:
    """Form fields in the shape that Twilio's validator reads: names, and every value of a name."""

    def __init__(self, fields: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in fields:
            self._values.setdefault(name, []).append(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[str]:
        return self._values[name]


class TwilioVerifier:
    """Checks X-Twilio-Signature with Twilio's own validator, over the URL of the settings, never Host.

    Source: https://www.twilio.com/docs/usage/webhooks/webhooks-security. The scheme has no time in it: that
    a callback is new is for `record_receipts` to say. `base_url` is the public URL in front of the paths
    given to `verify`.
    """

    def __init__(self, base_url: str, *auth_tokens: str) -> None:
        from twilio import request_validator  # 28 ms that only callbacks pay

        tokens = _checked("Twilio's callbacks", auth_tokens, ISSUED_SECRET_LENGTH)
        self._validators = [request_validator.RequestValidator(token) for token in tokens]
        self._algorithm_of = request_validator.get_signature_algorithm
        self._bases = _with_and_without_port(base_url.rstrip("/"))

    def verify(
        self, target: str, fields: Sequence[tuple[str, str]], signature: str, settings_header: str = ""
    ) -> bool:
        """Whether Twilio signed this POST.

        `target`: path and query exactly as received, after `base_url`. `fields`: the decoded form, in any
        order. `signature`: X-Twilio-Signature. `settings_header`: X-Twilio-Webhooks-Signature-Settings,
        which names HMAC_SHA256 for accounts that sign with a shared key.
        """
        if not target.startswith("/") or "#" in target or len(signature) not in (28, 44):
            return False
        form, fits = _Form(fields), False
        try:
            given = signature.encode("ascii")
            algorithm = self._algorithm_of(settings_header)
            for validator in self._validators:
                for base in self._bases:
                    made = validator.compute_signature(base + target, form, algorithm)
                    fits |= hmac.compare_digest(given, made.encode())
        except ValueError:  # an unknown algorithm, or text that has no bytes
            return False
        return fits


def _with_and_without_port(base_url: str) -> tuple[str, ...]:
    """Twilio is inconsistent about default ports (its validator tries both); others are always signed."""
    scheme, _, rest = base_url.partition("://")
    location, slash, path = rest.partition("/")
    port = {"https": "443", "http": "80"}.get(scheme)
    if port is None or location.endswith("]") or ":" in location.removesuffix(f":{port}"):
        return (base_url,)
    host = location.removesuffix(f":{port}")
    return f"{scheme}://{host}{slash}{path}", f"{scheme}://{host}:{port}{slash}{path}"


class ResendVerifier:
    """Checks Resend's callbacks: Standard Webhooks under Svix's names, five minutes either way.

    Source: https://resend.com/docs/dashboard/webhooks/verify-webhooks-requests. A secret is `whsec_` and
    base64.
    """

    def __init__(self, *secrets: str) -> None:
        import standardwebhooks

        for secret in _checked("Resend's callbacks", secrets, ISSUED_SECRET_LENGTH):
            if len(_signing_key(secret)) < ISSUED_SECRET_LENGTH:
                raise SettingsError("A secret for Resend's callbacks is not whsec_ and base64 of a long key")
        self._webhooks = [standardwebhooks.Webhook(secret) for secret in secrets]
        self._refusal = standardwebhooks.WebhookVerificationError

    def verify(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether Resend signed this body in the last five minutes. `headers`: names in lower case."""
        identifier, timestamp = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
        signatures = headers.get("svix-signature", "")
        # stricter than the library, whose float() and base64 take many spellings of the same value
        canonical = [one for one in signatures[:_LONGEST_HEADER].split(" ") if _is_canonical(one)]
        if not canonical or not _SVIX_TIMESTAMP.fullmatch(timestamp) or not _SVIX_ID.fullmatch(identifier):
            return False
        mapped = {
            "webhook-id": identifier,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(canonical),
        }
        for webhook in self._webhooks:
            try:
                webhook.verify(body, mapped, json_parse=False)
            except (self._refusal, ValueError):  # ValueError: a body that is not UTF-8
                continue
            return True
        return False


def _is_canonical(signature: str) -> bool:
    if _SVIX_SIGNATURE.fullmatch(signature) is None:
        return False
    text = signature[3:]
    return base64.b64encode(base64.b64decode(text)).decode() == text


def _signing_key(secret: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        return b""


class WebhookSigner:
    """Signs the webhooks that we send: Standard Webhooks, one derived secret an endpoint, none stored.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    def __init__(self, signing_key: str) -> None:
        (key,) = _checked("our webhooks", [signing_key], OWN_SECRET_LENGTH)
        self._key = key.encode()
        self.secret = lru_cache(maxsize=10_000)(self._derive)

    def _derive(self, organisation_id: str, endpoint: str, version: int = 1) -> str:
        """The secret of an endpoint: `whsec_` and base64. Another version is another secret."""
        text = f"endpoint:{organisation_id}:{endpoint}:{version}".encode()
        return "whsec_" + base64.b64encode(hmac.digest(self._key, text, hashlib.sha256)).decode()

    def headers(
        self,
        organisation_id: str,
        endpoint: str,
        identifier: str,
        timestamp: int,
        body: bytes,
        versions: Sequence[int] = (1,),
    ) -> dict[str, str]:
        """The three headers of a webhook; one signature a version: old and new while a secret rotates."""
        signed = b"%s.%d.%s" % (identifier.encode(), timestamp, body)
        signatures = [
            "v1," + base64.b64encode(hmac.digest(_signing_key(secret), signed, "sha256")).decode()
            for secret in (self.secret(organisation_id, endpoint, version) for version in versions)
        ]
        return {
            "webhook-id": identifier,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
