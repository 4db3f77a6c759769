"""What one demo is asked to do, and the settings that fit it."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from enum import StrEnum

CHANNELS = ("sms", "email", "voice", "webhook")
STORM_KILLS = 10
LEAST_LIMIT_SECONDS = 600.0
LIMIT_SECONDS_A_RECIPIENT = 0.06

# a crash is noticed within seconds instead of a minute, so that a demo in a storm ends while somebody watches
QUICK_SETTINGS = {
    "PROVIDER_TIMEOUT_SECONDS": "5",
    "DISPATCH_LEASE_SECONDS": "12",
    "DISPATCH_BUDGET_SECONDS": "10",
}


class Faults(StrEnum):
    """The carriers' presets."""

    NONE = "none"
    STANDARD = "standard"
    STORM = "storm"


@dataclass(slots=True, frozen=True)
class Options:
    """`kills`: dispatchers to kill (SIGKILL) on the way; `limit_seconds`: for sending and receipts together."""

    recipients: int = 5000
    seed: int = 7
    faults: Faults = Faults.NONE
    kills: int = 0
    limit_seconds: float = LEAST_LIMIT_SECONDS


def default_limit_seconds(recipients: int, faults: Faults) -> float:
    """Ten minutes, longer for many recipients; twice as long in a storm, where the last retry may wait for minutes."""
    seconds = max(LEAST_LIMIT_SECONDS, recipients * LIMIT_SECONDS_A_RECIPIENT)
    return 2 * seconds if faults is Faults.STORM else seconds


def default_kills(faults: Faults) -> int:
    return STORM_KILLS if faults is Faults.STORM else 0


def apply_quick_settings(environment: MutableMapping[str, str]) -> None:
    """Put the quick settings where the stack looks for them when it starts; what is there already wins."""
    for name, value in QUICK_SETTINGS.items():
        environment.setdefault(name, value)
