"""Knobs: what each channel's carrier does wrong and how often, and what its people do; checked here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum

CHANNELS = ("sms", "voice", "email", "webhook")
RECEIPTS = ("on", "final", "off")  # every status, only the last one, none
DAY_MS = 86_400_000.0


class KnobError(Exception):
    """A knob, a channel or a value that does not exist; the message says which and what is allowed."""


class Fate(Enum):
    """What becomes of one request. Exactly one is drawn."""

    SERVED = "served"
    THROTTLED = "throttled"
    BROKEN = "broken"
    BROKEN_ACCEPTED = "broken_accepted"
    LOST = "lost"
    HUNG = "hung"
    GARBAGE = "garbage"


@dataclass(slots=True, frozen=True)
class ChannelKnobs:
    """One channel's knobs. `rate_*` and `garbage_200` are shares (0 to 1) of requests, receipts or people."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0  # up to so much more latency
    requests_per_second: float = 0.0  # past it: 429; 0: no limit
    rate_429: float = 0.0
    retry_after_seconds: float = 1.0  # 0: 429 comes without a Retry-After header
    rate_5xx: float = 0.0  # refused: surely not accepted
    rate_5xx_accepted: float = 0.0  # accepted, although the answer is a 5xx
    rate_answer_lost: float = 0.0  # accepted, then the connection is cut
    rate_hang: float = 0.0  # no answer ever; every second one was accepted
    garbage_200: float = 0.0  # 200 with a page of HTML; accepted only by a webhook, where 2xx is success
    list_lag_ms: float = 0.0  # how long a message or call stays invisible to lists
    receipts: str = "on"
    receipt_delay_ms: float = 50.0  # between one status and the next
    receipt_jitter_ms: float = 0.0  # up to so much later, each receipt on its own: reorders them
    rate_receipt_duplicate: float = 0.0
    rate_receipt_lost: float = 0.0
    rate_receipt_late: float = 0.0
    receipt_late_ms: float = 0.0
    rate_undelivered: float = 0.0
    rate_bounce: float = 0.0
    rate_complaint: float = 0.0
    rate_busy: float = 0.0
    rate_no_answer: float = 0.0
    rate_machine: float = 0.0  # of the calls that are picked up
    rate_press: float = 1.0  # of the people who pick up
    press_digit: float = 1.0
    keep_body: bool = False  # the journal keeps bodies, not only their hashes
    fates: tuple[tuple[float, Fate], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fates", self._thresholds())

    def _thresholds(self) -> tuple[tuple[float, Fate], ...]:
        total, thresholds = 0.0, []
        for rate, fate in (
            (self.rate_429, Fate.THROTTLED),
            (self.rate_5xx, Fate.BROKEN),
            (self.rate_5xx_accepted, Fate.BROKEN_ACCEPTED),
            (self.rate_answer_lost, Fate.LOST),
            (self.rate_hang, Fate.HUNG),
            (self.garbage_200, Fate.GARBAGE),
        ):
            total += rate
            if rate > 0:
                thresholds.append((total, fate))
        if total > 1.0 + 1e-9:
            raise KnobError(
                f"the rates of 429, 5xx, lost answers, hangs and garbage add up to {total:g}, not 1 at most"
            )
        return tuple(thresholds)

    def fate(self, draw: float) -> Fate:
        """The fate that a draw from [0, 1) falls on."""
        for threshold, fate in self.fates:
            if draw < threshold:
                return fate
        return Fate.SERVED

    def document(self) -> dict[str, object]:
        """The knobs by name."""
        document = asdict(self)
        del document["fates"]
        return document


NAMES = tuple(each.name for each in fields(ChannelKnobs) if each.init)


def _range(name: str) -> tuple[float, float]:
    if name.startswith("rate_") or name == "garbage_200":
        return 0.0, 1.0
    if name.endswith("_ms"):
        return 0.0, DAY_MS
    if name == "press_digit":
        return 0.0, 9.0
    return 0.0, 1_000_000.0


def _checked(name: str, value: object) -> object:
    if name not in NAMES:
        raise KnobError(f"there is no knob {name!r}; the knobs are {', '.join(NAMES)}")
    if name == "receipts":
        if value not in RECEIPTS:
            raise KnobError(f"receipts must be one of {', '.join(RECEIPTS)}")
        return value
    if name == "keep_body":
        if not isinstance(value, bool):
            raise KnobError("keep_body must be true or false")
        return value
    low, high = _range(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise KnobError(f"{name} must be a number from {low:g} to {high:g}")
    return float(value)


def turned(knobs: ChannelKnobs, changes: object) -> ChannelKnobs:
    """The knobs with some changed. Raises KnobError for an unknown name or a value out of range."""
    if not isinstance(changes, Mapping):
        raise KnobError("the knobs of a channel must be an object")
    checked = {name: _checked(name, value) for name, value in changes.items()}
    return replace(knobs, **checked)  # type: ignore[arg-type]
