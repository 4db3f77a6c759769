"""Chance: seeded draws that depend on who was tried and how often, never on the order of things."""

from __future__ import annotations

import struct
from hashlib import blake2b

_SHARE = 1.0 / 2**32
_DRAWS = struct.Struct("<16I")

Draws = tuple[float, ...]


class Chance:
    """Sixteen draws from [0, 1) for each (seed, purpose, channel, destination, how often it was tried)."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._key = seed.to_bytes(8, "little")
        self._tries: dict[tuple[str, str, str], int] = {}

    def draw(self, purpose: str, channel: str, destination: str) -> Draws:
        """The draws of the next try of this destination for this purpose; counts the try."""
        place = (purpose, channel, destination)
        tried = self._tries.get(place, 0)
        self._tries[place] = tried + 1
        text = f"{purpose}\0{channel}\0{destination}\0{tried}".encode("utf-8", "surrogatepass")
        numbers = _DRAWS.unpack(blake2b(text, key=self._key).digest())
        return tuple(number * _SHARE for number in numbers)
