"""How many SMS segments a text takes; a count of its own, to compare the platform's with.

Source: 3GPP TS 23.038 (the GSM 7 bit default alphabet and its extension table): 160 or 153 septets, else
UCS-2 with 70 or 67 units.
"""

from __future__ import annotations

_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")
_ALL = _BASIC | _EXTENDED


def count_segments(text: str) -> int:
    """The number of segments; 1 for an empty text."""
    if _ALL.issuperset(text):
        units = len(text) + sum(text.count(character) for character in _EXTENDED)
        alone, joined = 160, 153
    else:
        units = len(text.encode("utf-16-le", "surrogatepass")) // 2
        alone, joined = 70, 67
    return 1 if units <= alone else -(-units // joined)
