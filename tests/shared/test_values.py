"""Delivery ids have one text form, and clean text is clean."""

from __future__ import annotations

import unicodedata
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.values import clean_text, delivery_id, parse_delivery_id, stored_text


@given(st.uuids(), st.integers(1, 999_999_999))
def test_a_delivery_id_comes_back(alert_id: UUID, number: int) -> None:
    assert parse_delivery_id(delivery_id(alert_id, number)) == (alert_id, number)


@pytest.mark.parametrize(
    "text", ["", "x", "0" * 32, "0" * 32 + "-0", "0" * 32 + "-01", "A" * 32 + "-1", "0" * 32 + "-1\n"]
)
def test_nothing_else_is_a_delivery_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a delivery id"):
        parse_delivery_id(text)


@pytest.mark.parametrize(
    "wrong",
    [
        "a\x00b",
        "a\nb",
        "a\r\nBcc: x",
        "a\x1b[2Jb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\u202eb",
        "a\u2066b",
        "a\ud800b",
    ],
)
def test_control_characters_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        clean_text(wrong, longest=200)


def test_lines_are_allowed_where_asked_for() -> None:
    assert clean_text("a\n\tb", longest=10, lines=True) == "a\n\tb"
    with pytest.raises(ValueError, match="control characters"):
        clean_text("a\rb", longest=10, lines=True)


@pytest.mark.parametrize("wrong", ["", "   ", "x" * 201])
def test_lengths_are_counted_after_cleaning(wrong: str) -> None:
    with pytest.raises(ValueError, match="1 to 200 characters"):
        clean_text(wrong, longest=200)


def test_text_is_composed_and_stripped() -> None:
    assert clean_text("  e\u0301cole  ", longest=5) == "école"


@given(st.text(max_size=300))
def test_clean_text_is_clean_or_refused(text: str) -> None:
    try:
        cleaned = clean_text(text, longest=200)
    except ValueError:
        return
    assert cleaned == clean_text(cleaned, longest=200)
    assert not any(unicodedata.category(one) in ("Cc", "Cs") for one in cleaned)


@given(st.text(st.characters(), max_size=50))
def test_stored_text_is_what_the_database_can_keep(text: str) -> None:
    kept = stored_text(text, longest=20)
    assert len(kept) <= 20
    assert "\x00" not in kept
    kept.encode()  # no lone surrogates
