"""How many SMS segments a text takes: GSM-7 (3GPP TS 23.038) or UCS-2.

`private.sms_segments` in SQL, which prices a send, counts the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION = "\f^{}\\[~]|€"  # an escape and a second septet each
_SEPTETS = dict.fromkeys(_BASIC, 1) | dict.fromkeys(_EXTENSION, 2)

_ONE = {"gsm-7": 160, "ucs-2": 70}
_EACH_OF_MANY = {"gsm-7": 153, "ucs-2": 67}  # the rest is the header that joins them


@dataclass(frozen=True, slots=True)
class Segments:
    """`units` are septets in GSM-7 and UTF-16 code units in UCS-2; `count` is what is paid for."""

    encoding: Literal["gsm-7", "ucs-2"]
    count: int
    units: int


def segments(text: str) -> Segments:
    """The segments of a text. An escape pair and a surrogate pair are never split over two of them."""
    encoding: Literal["gsm-7", "ucs-2"] = "gsm-7" if all(c in _SEPTETS for c in text) else "ucs-2"
    sizes = [_SEPTETS[c] for c in text] if encoding == "gsm-7" else [1 + (c > "\uffff") for c in text]
    units = sum(sizes)
    if units <= _ONE[encoding]:
        return Segments(encoding, 1, units)
    room = _EACH_OF_MANY[encoding]
    if max(sizes) == 1:
        return Segments(encoding, -(-units // room), units)
    return Segments(encoding, _walked(sizes, room), units)


def _walked(sizes: list[int], room: int) -> int:
    count, used = 1, 0
    for size in sizes:
        if used + size > room:
            count, used = count + 1, 0
        used += size
    return count


def offending(text: str) -> str:
    """The characters that force UCS-2 on a text, each once, in the order in which they come."""
    return "".join(dict.fromkeys(c for c in text if c not in _SEPTETS))
