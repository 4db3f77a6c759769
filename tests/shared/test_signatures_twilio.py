"""Twilio's callbacks: signed by the official validator's own arithmetic, and what is near to them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from shared.errors import SettingsError
from shared.signatures import TwilioVerifier

TOKEN, OTHER, OLD = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210", "o1d-token-" * 3
BASE = "https://project.supabase.co/functions/v1/delivery-webhook"
TARGET = "/twilio/message?d=0198c0de000070008000000000000001-17&a=1&m=abc_-123"
Fields = list[tuple[str, str]]
FIELDS: Fields = [
    ("AccountSid", "AC" + "0" * 32),
    ("ErrorCode", ""),
    ("From", "+15005550006"),
    ("MessageSid", "SM" + "1" * 32),
    ("MessageStatus", "delivered"),
    ("To", "+33612345678"),
]


def signed(
    fields: Fields, *, token: str = TOKEN, url: str = BASE + TARGET, algorithm: str | None = None
) -> str:
    return str(RequestValidator(token).compute_signature(url, dict(fields), algorithm))


GOOD = signed(FIELDS)


def changed(name: str, value: str) -> Fields:
    return [(key, value if key == name else old) for key, old in FIELDS]


def without(name: str) -> Fields:
    return [(key, value) for key, value in FIELDS if key != name]


def raw(key: bytes, text: str, kind: str = "sha1") -> str:
    return base64.b64encode(hmac.digest(key, text.encode(), kind)).decode()


SIGNED_TEXT = BASE + TARGET + "".join(name + value for name, value in FIELDS)
FORGED: dict[str, tuple[str, Fields, str]] = {
    "empty": (TARGET, FIELDS, ""),
    "blank": (TARGET, FIELDS, " " * 28),
    "truncated": (TARGET, FIELDS, GOOD[:-1]),
    "half": (TARGET, FIELDS, GOOD[:14]),
    "one more": (TARGET, FIELDS, GOOD + "="),
    "newline": (TARGET, FIELDS, GOOD + "\n"),
    "first letter": (TARGET, FIELDS, ("A" if GOOD[0] != "A" else "B") + GOOD[1:]),
    "last letter": (TARGET, FIELDS, GOOD[:-2] + ("A" if GOOD[-2] != "A" else "B") + "="),
    "upper case": (TARGET, FIELDS, GOOD.upper()),
    "lower case": (TARGET, FIELDS, GOOD.lower()),
    "full width": (TARGET, FIELDS, chr(ord(GOOD[0]) + 0xFEE0) + GOOD[1:]),
    "lone surrogate": (TARGET, FIELDS, "\ud800" + GOOD[1:]),
    "two in one": (TARGET, FIELDS, f"{GOOD},{GOOD}"),
    "other token": (TARGET, FIELDS, signed(FIELDS, token=OTHER)),
    "empty token": (TARGET, FIELDS, signed(FIELDS, token="")),
    "token out of force": (TARGET, FIELDS, signed(FIELDS, token=OLD)),
    "token in upper case": (TARGET, FIELDS, signed(FIELDS, token=TOKEN.upper())),
    "empty key, empty text": (TARGET, FIELDS, raw(b"", "")),
    "right key, empty text": (TARGET, FIELDS, raw(TOKEN.encode(), "")),
    "hash without a key": (TARGET, FIELDS, base64.b64encode(hashlib.sha1(SIGNED_TEXT.encode()).digest()).decode()),
    "hexadecimal": (TARGET, FIELDS, base64.b64decode(GOOD).hex()[:28]),
    "sha256 not announced": (TARGET, FIELDS, raw(TOKEN.encode(), SIGNED_TEXT, "sha256")),
    "sha512 cut": (TARGET, FIELDS, raw(TOKEN.encode(), SIGNED_TEXT, "sha512")[:28]),
    "URL without its base": (TARGET, FIELDS, signed(FIELDS, url=TARGET)),
    "signed for http": (TARGET, FIELDS, signed(FIELDS, url=(BASE + TARGET).replace("https", "http"))),
    "signed for another host": (TARGET, FIELDS, signed(FIELDS, url=BASE.replace("project", "evil") + TARGET)),
    "signed for another port": (TARGET, FIELDS, signed(FIELDS, url=BASE.replace(".co", ".co:444") + TARGET)),
    "signed for the host in capitals": (TARGET, FIELDS, signed(FIELDS, url=BASE.replace("pro", "PRO") + TARGET)),
    "signed for another path": (TARGET, FIELDS, signed(FIELDS, url=BASE + TARGET.replace("message", "call"))),
    "signed without the query": (TARGET, FIELDS, signed(FIELDS, url=BASE + TARGET.partition("?")[0])),
    "signed with the fragment": (TARGET, FIELDS, signed(FIELDS, url=BASE + TARGET + "#rc=5&rp=all")),
    "fragment in the target": (TARGET + "#rc=5", FIELDS, signed(FIELDS, url=BASE + TARGET + "#rc=5")),
    "other path": (TARGET.replace("message", "call"), FIELDS, GOOD),
    "path with a slash more": ("/" + TARGET, FIELDS, GOOD),
    "absolute URL as target": ("https://evil.example.com" + TARGET, FIELDS, GOOD),
    "query altered": (TARGET.replace("a=1", "a=2"), FIELDS, GOOD),
    "query encoded otherwise": (TARGET.replace("-17", quote("-", safe="").replace("-", "%2D") + "17"), FIELDS, GOOD),
    "query reordered": ("/twilio/message?a=1&d=0198c0de000070008000000000000001-17&m=abc_-123", FIELDS, GOOD),
    "query added": (TARGET + "&x=1", FIELDS, GOOD),
    "query removed": (TARGET.partition("&m=")[0], FIELDS, GOOD),
    "query gone": (TARGET.partition("?")[0], FIELDS, GOOD),
    "query's case": (TARGET.replace("abc", "ABC"), FIELDS, GOOD),
    "status altered": (TARGET, changed("MessageStatus", "failed"), GOOD),
    "status in upper case": (TARGET, changed("MessageStatus", "DELIVERED"), GOOD),
    "number altered": (TARGET, changed("To", "+33612345679"), GOOD),
    "plus read as a space": (TARGET, changed("To", " 33612345678"), GOOD),
    "empty value filled": (TARGET, changed("ErrorCode", "30007"), GOOD),
    "name altered": (TARGET, [*without("To"), ("to", "+33612345678")], GOOD),
    "field removed": (TARGET, without("MessageSid"), GOOD),
    "field added": (TARGET, [*FIELDS, ("SmsStatus", "sent")], GOOD),
    "field added with no value": (TARGET, [*FIELDS, ("Zzz", "")], GOOD),
    "field repeated with another value": (TARGET, [*FIELDS, ("MessageStatus", "failed")], GOOD),
    "field repeated before it": (TARGET, [("MessageStatus", "failed"), *FIELDS], GOOD),
    "no fields": (TARGET, [], GOOD),
    "values swapped": (
        TARGET, [*FIELDS[:2], ("From", "+33612345678"), *FIELDS[3:5], ("To", "+15005550006")], GOOD,
    ),
    "value composed otherwise": (TARGET, [*FIELDS, ("e", "e\u0301")], signed([*FIELDS, ("e", "\u00e9")])),
    "look-alike letter": (TARGET, changed("MessageStatus", "dеlivered"), GOOD),
    "lone surrogate in a value": (TARGET, changed("MessageStatus", "\ud800"), GOOD),
    "of another callback": (TARGET, changed("MessageStatus", "sent"), signed(changed("MessageStatus", "read"))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_callback_is_refused(name: str) -> None:
    target, fields, signature = FORGED[name]
    assert not TwilioVerifier(BASE, TOKEN).verify(target, fields, signature)


def test_there_are_enough_forgeries() -> None:
    assert len(FORGED) >= 40


def test_what_twilio_signed_passes_in_any_order_of_fields() -> None:
    verifier = TwilioVerifier(BASE, TOKEN)
    assert verifier.verify(TARGET, FIELDS, GOOD)
    assert verifier.verify(TARGET, FIELDS[::-1], GOOD)
    assert TwilioVerifier(BASE + "/", TOKEN).verify(TARGET, FIELDS, GOOD)


def test_a_name_with_two_values_is_signed_with_both() -> None:
    fields = [*FIELDS, ("Media", "b"), ("Media", "a")]
    signature = raw(TOKEN.encode(), BASE + TARGET + "".join(n + v for n, v in sorted(fields)))
    verifier = TwilioVerifier(BASE, TOKEN)
    assert verifier.verify(TARGET, fields, signature)
    assert not verifier.verify(TARGET, fields[:-1], signature)


def test_a_body_without_fields_passes_with_the_signature_of_the_url() -> None:
    assert TwilioVerifier(BASE, TOKEN).verify("/twilio/inbound", [], signed([], url=BASE + "/twilio/inbound"))


@pytest.mark.parametrize(
    ("base", "also"),
    [
        ("https://a.example.com/f", "https://a.example.com:443/f"),
        ("https://a.example.com:443/f", "https://a.example.com/f"),
        ("http://127.0.0.1/f", "http://127.0.0.1:80/f"),
    ],
)
def test_a_default_port_may_be_signed_or_not(base: str, also: str) -> None:
    for url in (base, also):
        assert TwilioVerifier(base, TOKEN).verify("/x?a=1", FIELDS, signed(FIELDS, url=url + "/x?a=1"))


@pytest.mark.parametrize(
    "base", ["http://127.0.0.1:54321/f", "https://a.example.com:8443/f", "https://[::1]:8443/f"]
)
def test_another_port_is_part_of_what_is_signed(base: str) -> None:
    verifier = TwilioVerifier(base, TOKEN)
    assert verifier.verify("/x", FIELDS, signed(FIELDS, url=base + "/x"))
    bare = base.replace(":54321", "").replace(":8443", "")
    assert not verifier.verify("/x", FIELDS, signed(FIELDS, url=bare + "/x"))


def test_two_tokens_are_in_force_while_one_rotates() -> None:
    verifier = TwilioVerifier(BASE, TOKEN, OLD)
    for token in (TOKEN, OLD):
        assert verifier.verify(TARGET, FIELDS, signed(FIELDS, token=token))
    assert not verifier.verify(TARGET, FIELDS, signed(FIELDS, token=OTHER))


def test_a_shared_key_signs_with_sha256_when_it_says_so() -> None:
    signature, header = (
        signed(FIELDS, algorithm="HMAC_SHA256"),
        "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
    )
    verifier = TwilioVerifier(BASE, TOKEN)
    assert verifier.verify(TARGET, FIELDS, signature, header)
    assert not verifier.verify(TARGET, FIELDS, GOOD, header)
    for other in ("algorithm=HMAC_MD5", "algorithm=none", "algorithm=", "key=x,algorithm=HMAC_SHA512"):
        assert not verifier.verify(TARGET, FIELDS, signature, other)


@pytest.mark.parametrize("tokens", [(), ("",), ("x" * 15,), (TOKEN, ""), (" " * 32,)], ids=repr)
def test_an_empty_or_short_token_refuses_to_start(tokens: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        TwilioVerifier(BASE, *tokens)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(GOOD) - 1), letter=st.characters())
def test_any_other_character_in_the_signature_is_refused(place: int, letter: str) -> None:
    forged = GOOD[:place] + letter + GOOD[place + 1 :]
    assert TwilioVerifier(BASE, TOKEN).verify(TARGET, FIELDS, forged) == (forged == GOOD)


@settings(max_examples=200, deadline=None)
@given(which=st.integers(1, len(FIELDS) - 1), place=st.integers(0, 40), letter=st.characters())
def test_any_other_character_in_a_value_is_refused(which: int, place: int, letter: str) -> None:
    name, value = FIELDS[which]
    place = min(place, max(len(value) - 1, 0))
    forged = [*FIELDS[:which], (name, value[:place] + letter + value[place + 1 :]), *FIELDS[which + 1 :]]
    assert TwilioVerifier(BASE, TOKEN).verify(TARGET, forged, GOOD) == (forged == FIELDS)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(TARGET) - 1), letter=st.characters())
def test_any_other_character_in_the_target_is_refused(place: int, letter: str) -> None:
    forged = TARGET[:place] + letter + TARGET[place + 1 :]
    assert TwilioVerifier(BASE, TOKEN).verify(forged, FIELDS, GOOD) == (forged == TARGET)
