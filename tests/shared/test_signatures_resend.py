"""Resend's callbacks (Svix), and the webhooks that we sign ourselves, held against both official libraries."""

from __future__ import annotations

import base64
import hmac
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.signatures import ResendVerifier, WebhookSigner

KEY, OTHER_KEY = b"alice-keeps-this-key-secret", b"bob-keeps-another-one-secret"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OTHER = "whsec_" + base64.b64encode(OTHER_KEY).decode()
IDENTIFIER = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"
BODY = b'{"type":"email.delivered","data":{"email_id":"1","tags":{"delivery":"d\xc3\xa9-1"}}}'


def sign(
    body: bytes, timestamp: str, *, key: bytes = KEY, identifier: str = IDENTIFIER, kind: str = "sha256"
) -> str:
    text = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, kind)).decode()


def headers(age_seconds: int = 0, **changes: str) -> dict[str, str]:
    """Good headers of now, less `age_seconds`; changes with underscores for dashes, "-" leaves one out."""
    timestamp = str(int(time.time()) - age_seconds)
    made = {"svix-id": IDENTIFIER, "svix-timestamp": timestamp, "svix-signature": sign(BODY, timestamp)}
    made.update({name.replace("_", "-"): value for name, value in changes.items()})
    return {name: value for name, value in made.items() if value != "-"}


def good(**changes: str) -> dict[str, str]:
    return headers(0, **changes)


def resigned(timestamp: str, **more: str) -> dict[str, str]:
    return {
        "svix-id": IDENTIFIER,
        "svix-timestamp": timestamp,
        "svix-signature": sign(BODY, timestamp),
        **more,
    }


def forgeries() -> dict[str, tuple[dict[str, str], bytes]]:
    """Made anew for each test, or a slow run would refuse them for their age."""
    now = str(int(time.time()))
    right = sign(BODY, now)
    return {
        "no headers": ({}, BODY),
        "no id": (good(svix_id="-"), BODY),
        "no timestamp": (good(svix_timestamp="-"), BODY),
        "no signature": (good(svix_signature="-"), BODY),
        "empty id": (good(svix_id=""), BODY),
        "empty timestamp": (good(svix_timestamp=""), BODY),
        "empty signature": (good(svix_signature=""), BODY),
        "blank signature": (good(svix_signature="   "), BODY),
        "webhook- instead of svix-": ({name.replace("svix", "webhook"): value for name, value in good().items()}, BODY),
        "other id": (good(svix_id="msg_other"), BODY),
        "id in lower case": (good(svix_id=IDENTIFIER.lower()), BODY),
        "id with a space": (good(svix_id=IDENTIFIER + " "), BODY),
        "id with a line break": (good(svix_id=IDENTIFIER + "\n"), BODY),
        "id that swallows the timestamp": (
            {"svix-id": f"{IDENTIFIER}.{now}", "svix-timestamp": now, "svix-signature": right}, BODY,
        ),
        "stale by a moment": (headers(302), BODY),
        "stale by an hour": (headers(3600), BODY),
        "from the future": (headers(-310), BODY),
        "from the far future": (headers(-10**8), BODY),
        "timestamp moved": (good(svix_timestamp=str(int(now) + 1)), BODY),
        "timestamp with a fraction": (resigned(now, **{"svix-timestamp": now + ".5"}), BODY),
        "timestamp with an underscore": (resigned(now, **{"svix-timestamp": now[:3] + "_" + now[3:]}), BODY),
        "timestamp with a plus": (resigned(now, **{"svix-timestamp": "+" + now}), BODY),
        "timestamp with a space": (resigned(now, **{"svix-timestamp": " " + now}), BODY),
        "timestamp with a zero before": (resigned("0" + now), BODY),
        "timestamp in Arabic digits": (resigned(now.translate({48 + n: 0x660 + n for n in range(10)})), BODY),
        "timestamp in full width": (
            resigned(now, **{"svix-timestamp": now.translate({48 + n: 0xFF10 + n for n in range(10)})}), BODY,
        ),
        "timestamp NaN": (resigned("nan"), BODY),
        "timestamp infinity": (resigned("inf"), BODY),
        "timestamp in milliseconds": (resigned(now + "000"), BODY),
        "timestamp zero": (resigned("0"), BODY),
        "timestamp negative": (resigned("-1"), BODY),
        "timestamp as exponent": (resigned(now, **{"svix-timestamp": "17e8"}), BODY),
        "body altered": (good(), BODY.replace(b"delivered", b"bounced")),
        "body with a space more": (good(), BODY + b" "),
        "body cut": (good(), BODY[:-1]),
        "body empty": (good(), b""),
        "body doubled": (good(), BODY + BODY),
        "body not UTF-8": (good(), b"\xff" + BODY),
        "body composed otherwise": (good(), BODY.decode().replace("\u00e9", "e\u0301").encode()),
        "version v0": (good(svix_signature=right.replace("v1", "v0")), BODY),
        "version v1a": (good(svix_signature=right.replace("v1,", "v1a,")), BODY),
        "version V1": (good(svix_signature=right.replace("v1", "V1")), BODY),
        "no version": (good(svix_signature=right[3:]), BODY),
        "no comma": (good(svix_signature=right.replace(",", "")), BODY),
        "two commas": (good(svix_signature=right.replace(",", ",,")), BODY),
        "truncated": (resigned(now, **{"svix-signature": right[:-2]}), BODY),
        "padding taken off": (resigned(now, **{"svix-signature": right[:-1]}), BODY),
        "case changed": (resigned(now, **{"svix-signature": "v1," + right[3:].swapcase()}), BODY),
        "hexadecimal": (resigned(now, **{"svix-signature": "v1," + base64.b64decode(right[3:]).hex()}), BODY),
        "url-safe alphabet": (resigned(now, **{"svix-signature": "v1," + "-" + right[4:]}), BODY),
        "look-alike letter": (resigned(now, **{"svix-signature": "v1,\u0430" + right[4:]}), BODY),
        "other secret": (resigned(now, **{"svix-signature": sign(BODY, now, key=OTHER_KEY)}), BODY),
        "empty key": (resigned(now, **{"svix-signature": sign(BODY, now, key=b"")}), BODY),
        "secret's text as key": (resigned(now, **{"svix-signature": sign(BODY, now, key=SECRET.encode())}), BODY),
        "sha1": (resigned(now, **{"svix-signature": sign(BODY, now, kind="sha1")}), BODY),
        "sha512": (resigned(now, **{"svix-signature": sign(BODY, now, kind="sha512")}), BODY),
        "several, none right": (
            resigned(now, **{"svix-signature": " ".join(sign(BODY, now, key=bytes([n]) * 24) for n in range(9))}), BODY,
        ),
        "the right one beyond the limit": (resigned(now, **{"svix-signature": "v0,x " * 1000 + right}), BODY),
}  # fmt: skip


FORGED = tuple(forgeries())


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_event_is_refused(name: str) -> None:
    made, body = forgeries()[name]
    assert not ResendVerifier(SECRET).verify(made, body)


def test_there_are_enough_forgeries() -> None:
    assert len(FORGED) >= 40


@pytest.mark.parametrize("age_seconds", [0, 295, -295])
def test_what_resend_signed_passes_within_five_minutes_either_way(age_seconds: int) -> None:
    assert ResendVerifier(SECRET).verify(headers(age_seconds), BODY)


def test_svix_and_we_agree_on_a_good_event() -> None:
    made = headers()
    svix.webhooks.Webhook(SECRET).verify(BODY, made)
    stamp = datetime.fromtimestamp(int(made["svix-timestamp"]), UTC)
    assert made["svix-signature"] == svix.webhooks.Webhook(SECRET).sign(IDENTIFIER, stamp, BODY.decode())


def test_one_right_signature_among_others_is_enough() -> None:
    made = headers()
    for around in ("v1a,abc {}", "{} v1,nonsense", "v1,x,y {}", "  {}  ", "v0," + "A" * 44 + " {}"):
        assert ResendVerifier(SECRET).verify(
            {**made, "svix-signature": around.format(made["svix-signature"])}, BODY
        )


def test_two_secrets_are_in_force_while_one_rotates() -> None:
    timestamp = str(int(time.time()))
    for key in (KEY, OTHER_KEY):
        made = {**headers(), "svix-timestamp": timestamp, "svix-signature": sign(BODY, timestamp, key=key)}
        assert ResendVerifier(SECRET, OTHER).verify(made, BODY)


@pytest.mark.parametrize(
    "secrets",
    [(), ("",), ("whsec_",), ("whsec_" + base64.b64encode(b"x" * 15).decode(),), ("whsec_not base64 at all!",),
     (SECRET, "whsec_"), ("whsec_====================",), (" " * 40,)],
    ids=repr,
)  # fmt: skip
def test_an_empty_or_short_secret_refuses_to_start(secrets: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        ResendVerifier(*secrets)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(BODY) - 1), byte=st.integers(0, 255))
def test_any_other_byte_in_the_body_is_refused(place: int, byte: int) -> None:
    forged = BODY[:place] + bytes([byte]) + BODY[place + 1 :]
    assert ResendVerifier(SECRET).verify(headers(), forged) == (forged == BODY)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(["svix-id", "svix-timestamp", "svix-signature"]), data=st.data())
def test_any_other_character_in_a_header_is_refused(name: str, data: st.DataObject) -> None:
    made = headers()
    place = data.draw(st.integers(0, len(made[name]) - 1))
    forged = made[name][:place] + data.draw(st.characters()) + made[name][place + 1 :]
    assert ResendVerifier(SECRET).verify({**made, name: forged}, BODY) == (forged == made[name])


SIGNING_KEY = "our-own-signing-key-of-forty-characters!"
ORGANISATION, ENDPOINT = "0198c0de-0000-7000-8000-000000000001", "https://hooks.example.com/a:b?c=1"


def test_the_official_libraries_accept_what_we_sign() -> None:
    signer = WebhookSigner(SIGNING_KEY)
    made = signer.headers(ORGANISATION, ENDPOINT, "d-1", int(time.time()), BODY)
    secret = signer.secret(ORGANISATION, ENDPOINT)
    standardwebhooks.Webhook(secret).verify(BODY, made)
    svix.webhooks.Webhook(secret).verify(BODY, made)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(BODY + b" ", made)


def test_old_and_new_secret_both_verify_while_rotating() -> None:
    signer = WebhookSigner(SIGNING_KEY)
    made = signer.headers(ORGANISATION, ENDPOINT, "d-1", int(time.time()), BODY, versions=(2, 1))
    for version in (1, 2):
        standardwebhooks.Webhook(signer.secret(ORGANISATION, ENDPOINT, version)).verify(BODY, made)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(signer.secret(ORGANISATION, ENDPOINT, 3)).verify(BODY, made)


def test_every_endpoint_has_a_secret_of_its_own() -> None:
    signer = WebhookSigner(SIGNING_KEY)
    secrets = {
        signer.secret(organisation, endpoint, version)
        for organisation in (ORGANISATION, ORGANISATION[:-1] + "2")
        for endpoint in (ENDPOINT, ENDPOINT + ":1", "https://hooks.example.com/")
        for version in (1, 11)
    } | {WebhookSigner(SIGNING_KEY + "x").secret(ORGANISATION, ENDPOINT)}
    assert len(secrets) == 13
    assert all(len(base64.b64decode(secret.removeprefix("whsec_"))) == 32 for secret in secrets)


@pytest.mark.parametrize("key", ["", "x" * 31, " " * 40])
def test_a_short_signing_key_refuses_to_start(key: str) -> None:
    with pytest.raises(SettingsError):
        WebhookSigner(key)
