"""The figures of a run: counts by channel, measured times and rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from infra.local.demo.evidence import Delivery, Evidence
from infra.local.demo.reconcile import CLAIMED_SENT

Percentiles = dict[str, float | None]


def percentiles(values: Iterable[float | None]) -> Percentiles:
    """p50 and p95 in seconds; None where there is no value."""
    known = sorted(value for value in values if value is not None)
    return {"p50": _at(known, 0.50), "p95": _at(known, 0.95)}


def _at(known: Sequence[float], share: float) -> float | None:
    return round(known[min(len(known) - 1, int(len(known) * share))], 3) if known else None


def by_channel(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """What became of each channel's rows."""
    rows: dict[str, list[Delivery]] = {}
    for delivery in evidence.deliveries:
        rows.setdefault(delivery.channel, []).append(delivery)
    return {channel: _of(found) for channel, found in rows.items()}


def _of(rows: Sequence[Delivery]) -> dict[str, Any]:
    states = Counter(row.state for row in rows)
    sent = [row for row in rows if row.state in CLAIMED_SENT]
    return {
        "paths": len(rows),
        "planned": len(rows) - _skipped_at_once(rows),
        "skipped": Counter(row.reason for row in rows if row.state == "skipped"),
        "sent": len(sent),
        "delivered": states["delivered"] + states["answered"],
        "failed": Counter(row.reason for row in rows if row.state in ("failed", "undelivered")),
        "awaiting_receipt": states["handed_over"] + states["sent"],
        "dead_letter": states["dead_letter"],
        "answered": sum(row.answered is not None for row in rows),
        "credits": sum(row.cost for row in sent),
        "seconds_to_accept": percentiles(row.handed_over for row in rows),
        "seconds_to_deliver": percentiles(row.delivered for row in rows),
    }


def _skipped_at_once(rows: Sequence[Delivery]) -> int:
    """Rows that were never claimed: the fan-out skipped them."""
    return sum(row.state == "skipped" and row.attempt == 0 for row in rows)


def rates(evidence: Evidence, begun_at: float) -> dict[str, float]:
    """Messages that the carriers accepted, over the seconds since the send (journal's times).

    Of all of them, and of the first 95 of 100: with faults, the last few wait for look-ups and retries.
    """
    times = sorted(row.time - begun_at for row in evidence.journal if row.reference)
    most = times[: max(1, len(times) * 95 // 100)]
    return {
        "messages_accepted": len(times),
        "seconds": round(times[-1], 3) if times else 0.0,
        "messages_per_second": _rate(times),
        "seconds_of_95_percent": round(most[-1], 3) if most else 0.0,
        "messages_per_second_of_95_percent": _rate(most),
    }


def _rate(times: Sequence[float]) -> float:
    return round(len(times) / times[-1], 1) if times and times[-1] > 0 else 0.0
