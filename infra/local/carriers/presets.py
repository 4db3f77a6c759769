"""Presets: three settings of all knobs, from a day without faults to a provider's worst one."""

from __future__ import annotations

from collections.abc import Mapping

from infra.local.carriers.knobs import CHANNELS, ChannelKnobs, KnobError, turned

# A usual day: a few refused, a few unsure, receipts twice, late and out of order, people who do not answer.
_STANDARD_WIRE = {
    "latency_ms": 15, "jitter_ms": 30, "rate_429": 0.02, "retry_after_seconds": 1, "rate_5xx": 0.01,
    "rate_5xx_accepted": 0.005, "rate_answer_lost": 0.005,
}  # fmt: skip
_STANDARD_RECEIPTS = {
    "receipt_delay_ms": 200, "receipt_jitter_ms": 800, "rate_receipt_duplicate": 0.05,
    "rate_receipt_lost": 0.005, "rate_receipt_late": 0.02, "receipt_late_ms": 4000,
}  # fmt: skip
# A provider that is going down: most requests are refused or hang, nothing that it says comes in order.
_STORM_WIRE = {
    "latency_ms": 40, "jitter_ms": 260, "rate_429": 0.30, "retry_after_seconds": 2, "rate_5xx": 0.15,
    "rate_5xx_accepted": 0.03, "rate_answer_lost": 0.05, "rate_hang": 0.01, "garbage_200": 0.03,
}  # fmt: skip
_STORM_RECEIPTS = {
    "receipt_delay_ms": 400, "receipt_jitter_ms": 5000, "rate_receipt_duplicate": 0.20,
    "rate_receipt_lost": 0.10, "rate_receipt_late": 0.20, "receipt_late_ms": 10_000,
}  # fmt: skip
_STANDARD_PEOPLE = {
    "sms": {"rate_undelivered": 0.03},
    "voice": {"rate_busy": 0.05, "rate_no_answer": 0.10, "rate_machine": 0.15, "rate_press": 0.70},
    "email": {"rate_bounce": 0.02, "rate_complaint": 0.005},
    "webhook": {},
}  # fmt: skip
_STORM_PEOPLE = {
    "sms": {"rate_undelivered": 0.08},
    "voice": {"rate_busy": 0.10, "rate_no_answer": 0.20, "rate_machine": 0.25, "rate_press": 0.50},
    "email": {"rate_bounce": 0.05, "rate_complaint": 0.01},
    "webhook": {},
}  # fmt: skip

PRESETS: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "none": {channel: {} for channel in CHANNELS},
    "standard": {
        channel: {**_STANDARD_WIRE, **_STANDARD_RECEIPTS, **_STANDARD_PEOPLE[channel]} for channel in CHANNELS
    },
    "storm": {channel: {**_STORM_WIRE, **_STORM_RECEIPTS, **_STORM_PEOPLE[channel]} for channel in CHANNELS},
}


def preset(name: object) -> dict[str, ChannelKnobs]:
    """Every channel's knobs under a preset. Raises KnobError for a name that is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise KnobError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return {channel: turned(ChannelKnobs(), PRESETS[name][channel]) for channel in CHANNELS}


class Board:
    """All knobs as they stand. A change that is refused changes nothing."""

    def __init__(self, name: str) -> None:
        self.preset = name
        self.of = preset(name)

    def turn(self, changes: Mapping[str, object]) -> None:
        """Apply `{"preset": name, "all": {...}, "<channel>": {...}}`, in that order. Raises KnobError."""
        name, knobs = self.preset, dict(self.of)
        if "preset" in changes:
            knobs = preset(changes["preset"])
            name = str(changes["preset"])
        for key in changes:
            if key not in ("preset", "all", *CHANNELS):
                raise KnobError(f"{key!r} is neither preset, seed, all nor a channel ({', '.join(CHANNELS)})")
        for channel in CHANNELS:
            for key in ("all", channel):
                if key in changes:
                    knobs[channel] = turned(knobs[channel], changes[key])
        self.preset, self.of = name, knobs

    def document(self) -> dict[str, object]:
        """The preset's name and every channel's knobs."""
        return {"preset": self.preset, **{channel: self.of[channel].document() for channel in CHANNELS}}
