"""The world of one carriers process: everything that its doors share, made once and passed to each."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from io import TextIOBase

from infra.local.carriers.callbacks import Callbacks
from infra.local.carriers.chance import Chance
from infra.local.carriers.idempotency import Idempotency
from infra.local.carriers.journal import Journal
from infra.local.carriers.presets import Board
from infra.local.carriers.records import Call, Email, Message, Shelf
from infra.local.carriers.settings import Settings

Clock = Callable[[], float]  # epoch seconds


class World:
    """Settings, knobs, chance, the journal, what the providers keep, and their callbacks."""

    def __init__(
        self, settings: Settings, clock: Clock, callbacks: Callbacks, journal_file: TextIOBase | None = None
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.callbacks = callbacks
        self.board = Board(settings.faults)
        self.chance = Chance(settings.seed)
        self.journal = Journal(settings.journal_rows, journal_file)
        self._shelves()

    def _shelves(self) -> None:
        self.messages: Shelf[Message] = Shelf()
        self.calls: Shelf[Call] = Shelf()
        self.emails: Shelf[Email] = Shelf()
        self.idempotency = Idempotency()
        self.opted_out: set[str] = set()
        self.windows: dict[str, tuple[int, int]] = {}  # channel -> the second, requests seen in it

    def new_chance(self, seed: int) -> None:
        """Draw from another seed, with every destination untried."""
        self.chance = Chance(seed)

    def reset(self, seed: int | None = None) -> None:
        """Forget all traffic and begin the chance anew; knobs stay."""
        self.new_chance(self.chance.seed if seed is None else seed)
        self.journal.clear()
        self.callbacks.clear()
        self._shelves()


def new_identifier(prefix: str) -> str:
    """An id as Twilio writes them: two letters and 32 hexadecimal digits; random, so unique over all runs."""
    return prefix + secrets.token_hex(16)
