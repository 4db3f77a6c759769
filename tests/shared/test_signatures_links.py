"""Our own links and callbacks: what we signed passes, everything near it does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.clock import FrozenClock
from shared.errors import SettingsError
from shared.signatures import LinkSigner

SECRET, OTHER, OLD = "alice-keeps-this-secret-very-well-1", "bob-keeps-another-secret-quite-well", "old" * 12
DELIVERY, ATTEMPT = "0198c0de000070008000000000000001-17", 2
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LATER = int(NOW.timestamp()) + 60


def signer(*secrets: str) -> LinkSigner:
    return LinkSigner(*(secrets or (SECRET,)), now=FrozenClock(NOW))


GOOD = signer().sign_link("delivery", DELIVERY, ATTEMPT)
DATED = signer().sign_link("delivery", DELIVERY, ATTEMPT, expires_at=LATER)
EXPIRED = signer().sign_link("delivery", DELIVERY, ATTEMPT, expires_at=LATER - 60)


def other_letter(text: str, place: int) -> str:
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


FORGED: dict[str, tuple[str, str, tuple[str | int, ...]]] = {
    "empty": ("", "delivery", (DELIVERY, ATTEMPT)),
    "blank": (" ", "delivery", (DELIVERY, ATTEMPT)),
    "first letter changed": (other_letter(GOOD, 0), "delivery", (DELIVERY, ATTEMPT)),
    "middle letter changed": (other_letter(GOOD, 12), "delivery", (DELIVERY, ATTEMPT)),
    "last letter changed": (other_letter(GOOD, 23), "delivery", (DELIVERY, ATTEMPT)),
    "truncated by one": (GOOD[:-1], "delivery", (DELIVERY, ATTEMPT)),
    "truncated to half": (GOOD[:12], "delivery", (DELIVERY, ATTEMPT)),
    "one letter more": (GOOD + "A", "delivery", (DELIVERY, ATTEMPT)),
    "padding added": (GOOD + "==", "delivery", (DELIVERY, ATTEMPT)),
    "newline added": (GOOD + "\n", "delivery", (DELIVERY, ATTEMPT)),
    "NUL added": (GOOD + "\0", "delivery", (DELIVERY, ATTEMPT)),
    "space before": (" " + GOOD, "delivery", (DELIVERY, ATTEMPT)),
    "doubled": (GOOD + GOOD, "delivery", (DELIVERY, ATTEMPT)),
    "upper case": (GOOD.upper(), "delivery", (DELIVERY, ATTEMPT)),
    "lower case": (GOOD.lower(), "delivery", (DELIVERY, ATTEMPT)),
    "case swapped": (GOOD.swapcase(), "delivery", (DELIVERY, ATTEMPT)),
    "reversed": (GOOD[::-1], "delivery", (DELIVERY, ATTEMPT)),
    "percent encoded": ("%" + format(ord(GOOD[0]), "x") + GOOD[1:], "delivery", (DELIVERY, ATTEMPT)),
    "hexadecimal": (base64.urlsafe_b64decode(GOOD).hex(), "delivery", (DELIVERY, ATTEMPT)),
    "full width letter": (chr(ord(GOOD[0]) + 0xFEE0) + GOOD[1:], "delivery", (DELIVERY, ATTEMPT)),
    "zero width space": (GOOD[:12] + "\u200b" + GOOD[12:], "delivery", (DELIVERY, ATTEMPT)),
    "lone surrogate": ("\ud800" + GOOD[1:], "delivery", (DELIVERY, ATTEMPT)),
    "other secret": (signer(OTHER).sign_link("delivery", DELIVERY, ATTEMPT), "delivery", (DELIVERY, ATTEMPT)),
    "old secret out of force": (signer(OLD).sign_link("delivery", DELIVERY, ATTEMPT), "delivery", (DELIVERY, ATTEMPT)),
    "plain HMAC with the secret": (
        base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), DELIVERY.encode(), "sha256")[:18]).decode(),
        "delivery", (DELIVERY, ATTEMPT),
    ),
    "hash without a key": (
        base64.urlsafe_b64encode(hashlib.sha256(DELIVERY.encode()).digest()[:18]).decode(),
        "delivery", (DELIVERY, ATTEMPT),
    ),
    "empty key": (
        base64.urlsafe_b64encode(hmac.digest(b"", DELIVERY.encode(), "sha256")[:18]).decode(),
        "delivery", (DELIVERY, ATTEMPT),
    ),
    "all zeros": ("A" * 24, "delivery", (DELIVERY, ATTEMPT)),
    "other purpose": (GOOD, "unsubscribe", (DELIVERY, ATTEMPT)),
    "empty purpose": (GOOD, "", (DELIVERY, ATTEMPT)),
    "purpose that swallows a part": (GOOD, f"delivery{DELIVERY}", (ATTEMPT,)),
    "other delivery": (GOOD, "delivery", (DELIVERY[:-1] + "8", ATTEMPT)),
    "delivery in upper case": (GOOD, "delivery", (DELIVERY.upper(), ATTEMPT)),
    "delivery with a space": (GOOD, "delivery", (DELIVERY + " ", ATTEMPT)),
    "other attempt": (GOOD, "delivery", (DELIVERY, ATTEMPT + 1)),
    "attempt with a zero before": (GOOD, "delivery", (DELIVERY, f"0{ATTEMPT}")),
    "attempt in full width": (GOOD, "delivery", (DELIVERY, "２")),
    "no attempt": (GOOD, "delivery", (DELIVERY,)),
    "no parts": (GOOD, "delivery", ()),
    "one part more": (GOOD, "delivery", (DELIVERY, ATTEMPT, "")),
    "parts swapped": (GOOD, "delivery", (ATTEMPT, DELIVERY)),
    "border between parts moved": (GOOD, "delivery", (DELIVERY[:-1], f"7{ATTEMPT}")),
    "parts joined": (GOOD, "delivery", (f"{DELIVERY}{ATTEMPT}",)),
    "parts joined as they are signed": (GOOD, "delivery", (f"{DELIVERY},1:{ATTEMPT}",)),
    "expired": (EXPIRED, "delivery", (DELIVERY, ATTEMPT)),
    "end moved": (f"{LATER + 9999}.{DATED.split('.')[1]}", "delivery", (DELIVERY, ATTEMPT)),
    "end taken off": (DATED.split(".")[1], "delivery", (DELIVERY, ATTEMPT)),
    "end put on": (f"{LATER}.{GOOD}", "delivery", (DELIVERY, ATTEMPT)),
    "end with a zero before": (f"0{DATED}", "delivery", (DELIVERY, ATTEMPT)),
    "end negative": (f"-{DATED}", "delivery", (DELIVERY, ATTEMPT)),
    "end in Arabic digits": (DATED.translate({48 + n: 0x660 + n for n in range(10)}), "delivery", (DELIVERY, ATTEMPT)),
    "end as a part": (DATED.split(".")[1], "delivery", (f"{LATER}.", DELIVERY, ATTEMPT)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_link_is_refused(name: str) -> None:
    signature, purpose, parts = FORGED[name]
    assert not signer().verify_link(signature, purpose, *parts)


def test_there_are_enough_forgeries() -> None:
    assert len(FORGED) >= 40


@pytest.mark.parametrize("signature", [GOOD, DATED])
def test_what_we_signed_passes_also_with_the_attempt_as_text(signature: str) -> None:
    assert signer().verify_link(signature, "delivery", DELIVERY, ATTEMPT)
    assert signer().verify_link(signature, "delivery", DELIVERY, str(ATTEMPT))


def test_a_link_expires_on_the_second() -> None:
    clock = FrozenClock(NOW)
    links = LinkSigner(SECRET, now=clock)
    clock.advance(59.9)
    assert links.verify_link(DATED, "delivery", DELIVERY, ATTEMPT)
    clock.advance(0.1)
    assert not links.verify_link(DATED, "delivery", DELIVERY, ATTEMPT)


def test_a_previous_secret_still_verifies_and_never_signs() -> None:
    old = signer(OLD).sign_link("delivery", DELIVERY, ATTEMPT)
    rotating = signer(SECRET, OLD)
    assert rotating.verify_link(old, "delivery", DELIVERY, ATTEMPT)
    assert rotating.verify_link(GOOD, "delivery", DELIVERY, ATTEMPT)
    assert rotating.sign_link("delivery", DELIVERY, ATTEMPT) == GOOD


@pytest.mark.parametrize(
    "secrets", [(), ("",), ("x" * 31,), (SECRET, ""), (SECRET, "brief"), (" " * 40,)], ids=repr
)
def test_an_empty_or_short_secret_refuses_to_start(secrets: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as raised:
        LinkSigner(*secrets)
    assert not any(secret.strip() and secret in str(raised.value) for secret in secrets)


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, len(DATED) - 1), letter=st.characters())
def test_any_other_character_anywhere_is_refused(place: int, letter: str) -> None:
    changed = DATED[:place] + letter + DATED[place + 1 :]
    assert signer().verify_link(changed, "delivery", DELIVERY, ATTEMPT) == (changed == DATED)


@settings(max_examples=60, deadline=None)
@given(one=st.lists(st.text(max_size=3), max_size=3), two=st.lists(st.text(max_size=3), max_size=3))
def test_no_two_lists_of_parts_share_a_signature(one: list[str], two: list[str]) -> None:
    links = signer()
    same = links.sign_link("a", *one) == links.sign_link("a", *two)
    assert same == (one == two)


def test_a_signature_is_safe_in_a_url_and_long_enough() -> None:
    safe = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    for number in range(200):
        signature = signer().sign_link("delivery", DELIVERY, number)
        assert set(signature) <= safe
        assert len(base64.urlsafe_b64decode(signature)) * 8 >= 128
