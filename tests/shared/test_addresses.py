"""Addresses: one spelling each, and a reason for what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.addresses import AddressError, email, endpoint, normalise, phone
from shared.values import AddressKind


@pytest.mark.parametrize(
    "spelling",
    ["+33 6 12 34 56 78", "06 12 34 56 78", "0033612345678", "06.12.34.56.78", "+33(0)6-12-34-56-78"],
)
def test_spellings_of_one_number_are_one_address(spelling: str) -> None:
    assert phone(spelling, "FR") == "+33612345678"


@pytest.mark.parametrize(
    ("text", "country", "expected"),
    [
        ("+44 7400 123456", None, "+447400123456"),
        ("(201) 555-0123", "US", "+12015550123"),
        ("0470 12 34 56", "BE", "+32470123456"),
        ("+49 1512 3456789", None, "+4915123456789"),
        ("\u202f06\u00a012\u00a034\u00a056\u00a078", "FR", "+33612345678"),
    ],
)
def test_numbers_of_several_countries(text: str, country: str | None, expected: str) -> None:
    assert phone(text, country) == expected


@pytest.mark.parametrize(
    ("text", "country"),
    [
        ("", "FR"),
        ("12", "FR"),
        ("06 12 34 56 78", None),  # national, and no country to read it by
        ("+33 6 12", None),
        ("+999 123 456 789", None),
        ("1-800-FLOWERS", "US"),
        ("+33612345678;ext=3", None),
        ("0899 12 34 56", "FR"),  # premium rate
        ("+1 900 234 5678", None),  # premium rate
        ("+44 909 8790000", None),  # premium rate
        ("+870 773 111 632", None),  # Inmarsat
        ("+881 6 1234 5678", None),  # Iridium
        ("+882 16 1234 5678", None),
        ("+979 1 2345 6789", None),  # international premium rate
        ("+" + "1" * 40, None),
    ],
)
def test_what_is_not_called_is_refused_with_a_reason(text: str, country: str | None) -> None:
    with pytest.raises(AddressError) as caught:
        phone(text, country)
    assert len(str(caught.value)) > 10
    assert len(text) < 3 or text not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_phone_or_refused(text: str) -> None:
    try:
        assert phone(phone(text, "FR")) == phone(text, "FR")
    except AddressError:
        return


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bob@Example.COM", "bob@example.com"),
        ("  bob+alerts@example.com ", "bob+alerts@example.com"),
        ("bob@bücher.example", "bob@xn--bcher-kva.example"),
        ("o'neil@example.com", "o'neil@example.com"),
    ],
)
def test_emails_have_one_spelling(text: str, expected: str) -> None:
    assert email(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "bob", "bob@", "@example.com", "bob@localhost", "bob@example..com", "a b@example.com",
        "bob@example.com\r\nBcc: x@y.fr",
        "Bob <bob@example.com>", "bob@[127.0.0.1]",
        "x" * 65 + "@example.com", "bob@" + "a" * 250 + ".com", "böb@example.com",
    ],
)  # fmt: skip
def test_what_is_no_email_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        email(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://hooks.example.com/in?x=1", "https://hooks.example.com/in?x=1"),
        ("https://Hooks.Example.com:443/In", "https://hooks.example.com/In"),
        ("https://hooks.example.com:8443/", "https://hooks.example.com:8443/"),
    ],
)
def test_endpoints_have_one_spelling(text: str, expected: str) -> None:
    assert endpoint(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "hooks.example.com", "http://hooks.example.com", "ftp://x", "https://", "https://user:pw@example.com/",
        "https://example.com:22/",
        "https://example.com/#part", "https://exämple.com/", "https://example.com/a b", "https://exam\nple.com/",
        "https://e" + "x" * 2000,
        "https://example.com:99999/", "javascript:alert(1)", "https://a\\@b.example/",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        endpoint(text)


def test_the_local_sink_is_one_exact_origin() -> None:
    sink = "http://127.0.0.1:9000"
    assert endpoint(sink + "/sink/a", local_sink=sink) == sink + "/sink/a"
    for other in ("http://127.0.0.1:9001/", "http://127.0.0.1:9000@evil.example/", "http://localhost:9000/"):
        with pytest.raises(AddressError):
            endpoint(other, local_sink=sink)


def test_the_kind_chooses_the_rule() -> None:
    assert normalise(AddressKind.PHONE, "06 12 34 56 78", country="FR") == "+33612345678"
    assert normalise(AddressKind.EMAIL, "A@example.com") == "a@example.com"
    assert normalise(AddressKind.ENDPOINT, "https://example.com/a") == "https://example.com/a"
