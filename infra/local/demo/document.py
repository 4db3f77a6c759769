"""The run as one JSON document. It holds no address, no name, no token and no path of this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from infra.local.demo import figures
from infra.local.demo.reconcile import Findings, Tally
from infra.local.demo.run import Outcome


def document(outcome: Outcome) -> dict[str, Any]:
    """Everything that the tables and the chart show, and more: the whole report and each reconciled reference list."""
    options, sent, watched = outcome.options, outcome.sent, outcome.watched
    return {
        "options": asdict(options),
        "import": _import(outcome),
        "alert": outcome.evidence.report,
        "quote": sent.quote,
        "answer": sent.answer,
        "channels": figures.by_channel(outcome.evidence),
        "phases": {
            "import_seconds": round(outcome.import_seconds, 3),
            "quote_seconds": round(sent.quote_seconds, 3),
            "fan_out_seconds": round(sent.send_seconds, 3),
            "dispatch_seconds": _rounded(watched.dispatch_seconds),
            "quiet_seconds": _rounded(watched.quiet_seconds),
        },
        "rates": figures.rates(outcome.evidence, sent.begun_at),
        "kills": [asdict(kill) for kill in outcome.killer.kills],
        "receipts": outcome.evidence.receipts,
        "ledger": asdict(outcome.evidence.ledger),
        "reconciliation": reconciliation(outcome.findings),
        "failures": outcome.failures,
        "reconciles": not outcome.failures,
    }


def reconciliation(findings: Findings) -> dict[str, Any]:
    """Counts a channel, the references behind those that are not 0, and the checks that hold."""
    return {
        "channels": {channel: _tally(tally) for channel, tally in findings.tallies.items()},
        "checks": [{"what": what, "figures": text} for what, text in findings.checks],
    }


def _tally(tally: Tally) -> dict[str, Any]:
    values = asdict(tally)
    del values["channel"]
    lists = {name: value for name, value in values.items() if isinstance(value, list)}
    counts = {name: len(value) if name in lists else value for name, value in values.items()}
    return counts | {"references": {name: value for name, value in lists.items() if value}}


def _import(outcome: Outcome) -> dict[str, Any]:
    imported = outcome.scene.imported
    return {
        "created": imported.created,
        "updated": imported.updated,
        "refused_count": imported.refused_count,
        "refused": imported.refused,
        "mix": outcome.scene.crowd.mix
        | {"opted_out": len(outcome.scene.crowd.opted_out), "bounced": len(outcome.scene.crowd.bounced)},
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
