"""SMS segments: the limits of both encodings, and pairs that are never split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.segments import offending, segments

GSM = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCXYZÄÖÑÜ§¿abcxyzäöñüà"
EXTENDED = "\f^{}\\[~]|€"


@pytest.mark.parametrize(
    ("text", "encoding", "count", "units"),
    [
        ("", "gsm-7", 1, 0),
        ("a" * 160, "gsm-7", 1, 160),
        ("a" * 161, "gsm-7", 2, 161),
        ("a" * 306, "gsm-7", 2, 306),
        ("a" * 307, "gsm-7", 3, 307),
        ("€" * 80, "gsm-7", 1, 160),
        ("a" + "€" * 80, "gsm-7", 2, 161),
        ("a" * 152 + "€" + "a" * 152, "gsm-7", 3, 306),  # the pair does not fit at 153: 152 + 153 + 1
        ("a" * 151 + "€" + "a" * 153, "gsm-7", 2, 306),
        ("é" * 160, "gsm-7", 1, 160),
        ("ê", "ucs-2", 1, 1),  # French, and not in GSM-7
        ("ç", "ucs-2", 1, 1),  # GSM-7 has the capital only
        ("Ç", "gsm-7", 1, 1),
        ("ê" * 70, "ucs-2", 1, 70),
        ("ê" * 71, "ucs-2", 2, 71),
        ("ê" * 134, "ucs-2", 2, 134),
        ("ê" * 135, "ucs-2", 3, 135),
        ("🚨" * 35, "ucs-2", 1, 70),
        ("🚨" * 36, "ucs-2", 2, 72),
        ("🚨" * 67, "ucs-2", 3, 134),  # 33 pairs a segment: a pair is not split
        ("`", "ucs-2", 1, 1),
    ],
)
def test_known_texts(text: str, encoding: str, count: int, units: int) -> None:
    counted = segments(text)
    assert (counted.encoding, counted.count, counted.units) == (encoding, count, units)


@given(st.text(GSM + EXTENDED, max_size=700))
def test_gsm_text_is_counted_in_septets(text: str) -> None:
    counted = segments(text)
    assert counted.encoding == "gsm-7"
    assert counted.units == len(text) + sum(one in EXTENDED for one in text)
    assert counted.count == _packed([2 if one in EXTENDED else 1 for one in text], 160, 153)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map("ê".__add__))
def test_other_text_is_counted_in_utf_16(text: str) -> None:
    counted = segments(text)
    assert counted.encoding == "ucs-2"
    assert counted.units == len(text.encode("utf-16-le")) // 2
    assert counted.count == _packed([len(one.encode("utf-16-le")) // 2 for one in text], 70, 67)


@given(st.text(max_size=400), st.text(max_size=50))
def test_more_text_never_takes_fewer_segments(text: str, more: str) -> None:
    assert segments(text + more).count >= segments(text).count


def test_the_characters_that_cost_are_named_once() -> None:
    assert offending("Évacuez l'île, vite… à bientôt, l'île") == "î…ô"


def _packed(sizes: list[int], alone: int, room: int) -> int:
    """Another way to count: fill segment after segment."""
    if sum(sizes) <= alone:
        return 1
    filled = [0]
    for size in sizes:
        if filled[-1] + size <= room:
            filled[-1] += size
        else:
            filled.append(size)
    return len(filled)
