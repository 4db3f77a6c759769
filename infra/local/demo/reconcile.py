"""The reconciliation: what the carriers accepted against what our rows claim, and every credit."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from infra.local.demo.evidence import Accepted, Delivery, Evidence
from shared.values import Channel, delivery_id

CLAIMED_SENT = frozenset({"handed_over", "sent", "delivered", "answered", "undelivered", "no_receipt"})
OPEN = frozenset({"planned", "held", "claimed", "outcome_unknown"})
AWAITING_RECEIPT = frozenset({"handed_over", "sent"})
NEED_A_REASON = frozenset({"skipped", "failed", "undelivered"})
MOST_NAMED = 5


@dataclass(slots=True)
class Tally:
    """One channel: our rows beside the carriers' journal. Lists hold references (delivery ids).

    duplicates: taken more than once; flagged: those of them that our own rows or events show. repeated: webhooks
    that went out again under the same webhook-id, which receivers drop. missing: our row says sent, the journal
    has nothing. strangers: the journal has it, no row of ours says sent. misnamed: our provider id is none of
    those that the journal has.
    """

    channel: str
    rows: int = 0
    claimed_sent: int = 0  # rows of ours that say the carrier has it
    accepted: int = 0  # messages that the carrier took
    accepted_once: int = 0  # references that were taken once
    duplicates: list[str] = field(default_factory=list)
    flagged: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    misnamed: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """What was compared and holds, with its figures, and one sentence for each thing that does not fit."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    checks: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def expect(self, what: str, holds: bool, figures: str) -> None:
        if holds:
            self.checks.append((what, figures))
        else:
            self.failures.append(f"{what}: {figures}")


def reconcile(evidence: Evidence, *, people: int, planted: Mapping[str, int] | None = None) -> Findings:
    """Judge the evidence. `people` is the audience; `planted` how many rows the fan-out had to skip, by reason."""
    findings = Findings()
    for tally in _tallies(evidence):
        findings.tallies[tally.channel] = tally
        findings.failures += _complaints(tally)
    _judge_states(evidence, people, findings)
    _judge_report(evidence, findings)
    _judge_ledger(evidence, findings)
    if planted is not None:
        skipped = dict(evidence.answer["skipped"])
        findings.expect("skipped as planted", skipped == dict(planted), f"{skipped}, planted {dict(planted)}")
    return findings


def _tallies(evidence: Evidence) -> Iterator[Tally]:
    taken: dict[str, dict[str, list[Accepted]]] = defaultdict(lambda: defaultdict(list))
    strangers: dict[str, list[str]] = defaultdict(list)
    for row in evidence.journal:
        alert, _, _ = (row.reference or "").partition("-")
        if row.reference and alert == evidence.alert_id.hex:
            taken[row.channel][row.reference].append(row)
        elif alert not in evidence.other_alerts:
            strangers[row.channel].append(row.reference or f"{row.provider_id} (without a reference)")
    rows = defaultdict(list)
    for delivery in evidence.deliveries:
        rows[delivery.channel].append(delivery)
    reference_of = partial(_reference, evidence)
    for channel in Channel:
        if rows[channel] or taken[channel] or strangers[channel]:
            ours = {reference_of(each): each for each in rows[channel]}
            yield _tally(channel, ours, taken[channel], strangers[channel])


def _reference(evidence: Evidence, delivery: Delivery) -> str:
    return delivery_id(evidence.alert_id, delivery.number)


def _tally(
    channel: Channel,
    ours: Mapping[str, Delivery],
    taken: Mapping[str, Sequence[Accepted]],
    strangers: Sequence[str],
) -> Tally:
    tally = Tally(channel.value, rows=len(ours), strangers=list(strangers))
    claimed = {reference for reference, row in ours.items() if row.state in CLAIMED_SENT}
    tally.claimed_sent = len(claimed)
    tally.accepted = sum(len(rows) for rows in taken.values())
    tally.accepted_once = sum(len(rows) == 1 for rows in taken.values())
    tally.missing = sorted(claimed - set(taken))
    tally.strangers += sorted(set(taken) - claimed)
    again = sorted(reference for reference, rows in taken.items() if len(rows) > 1)
    if channel is Channel.WEBHOOK:  # the reference is the webhook-id itself
        tally.repeated = again
        return tally
    tally.duplicates = again
    tally.flagged = [reference for reference in again if reference in ours and _is_flagged(ours[reference])]
    tally.misnamed = [
        reference
        for reference in sorted(claimed & set(taken))
        if (name := ours[reference].provider_id) and name not in {row.provider_id for row in taken[reference]}
    ]
    return tally


def _is_flagged(row: Delivery) -> bool:
    """Our own events show that it went out twice: a second attempt alone says nothing, since it was due."""
    return row.accepted_events > 1 or row.provider_ids > 1


def _complaints(tally: Tally) -> Iterator[str]:
    unflagged = sorted(set(tally.duplicates) - set(tally.flagged))
    sentences = (
        (tally.missing, "rows say sent, and the carriers never accepted them"),
        (tally.strangers, "accepted by the carriers, and no row of ours says sent"),
        (unflagged, "accepted more than once, and none of our rows or events shows it"),
        (tally.misnamed, "rows carry a provider id that the carriers never gave them"),
    )
    for references, sentence in sentences:
        if references:
            yield f"{tally.channel}: {len(references)} {sentence} ({_named(references)})"
    if tally.channel == Channel.EMAIL and tally.flagged:
        yield (
            f"email: {len(tally.flagged)} accepted more than once although an idempotency key goes with each "
            f"({_named(tally.flagged)})"
        )


def _judge_states(evidence: Evidence, people: int, findings: Findings) -> None:
    """Every recipient in exactly one explained state on each channel."""
    rows, channels = evidence.deliveries, {row.channel for row in evidence.deliveries}
    paths = Counter((row.contact_id, row.channel) for row in rows)
    findings.expect(
        "one row for each person and channel",
        len(paths) == len(rows) == people * len(channels) and len({row.contact_id for row in rows}) == people,
        f"{len(rows)} rows, {len(paths)} of them different, for {people} people and {len(channels)} channels",
    )
    still_open = Counter(f"{row.channel} {row.state}" for row in rows if row.state in OPEN)
    findings.expect("no row is open", not still_open, _counted(still_open))
    mute = [row.number for row in rows if row.state in NEED_A_REASON and not row.reason]
    findings.expect("every skip and failure has a reason", not mute, f"{len(mute)} without")
    waiting = sum(row.state in AWAITING_RECEIPT for row in rows)
    lost = int(evidence.receipts["lost"]) + int(evidence.receipts["failed"])
    findings.expect(
        "rows that wait for a receipt are at most the receipts that the carriers lost",
        waiting <= lost,
        f"{waiting} rows, {lost} receipts",
    )
    pending = int(evidence.receipts["pending"])
    findings.expect("the carriers owe no receipt", pending == 0, f"{pending} pending")
    unplaced = evidence.unplaced_receipts
    findings.expect("every receipt found its row", unplaced == 0, f"{unplaced} in the inbox")


def _judge_report(evidence: Evidence, findings: Findings) -> None:
    """The report's figures are those of the rows."""
    states = Counter(row.state for row in evidence.deliveries)
    told = {state: int(count) for state, count in evidence.report["states"].items()}
    findings.expect("the report counts what the rows say", told == dict(states), f"{_counted(states)}")
    sent = sum(count for state, count in states.items() if state in CLAIMED_SENT)
    findings.expect(
        "the report's sum of sent is that of the rows", evidence.report["sent"] == sent, f"{sent} rows"
    )


def _judge_ledger(evidence: Evidence, findings: Findings) -> None:
    ledger, rows = evidence.ledger, evidence.deliveries
    promised = int(evidence.answer["credits_reserved"])
    used = sum(row.cost for row in rows if row.state in CLAIMED_SENT)
    findings.expect(
        "reserved is what the send answered",
        ledger.reservation == promised == ledger.entries_reserved,
        f"{ledger.reservation} reserved, {ledger.entries_reserved} in the ledger, {promised} answered",
    )
    findings.expect(
        "reserved = settled + released",
        ledger.reservation == ledger.settled + ledger.released,
        f"{ledger.reservation} = {ledger.settled} + {ledger.released}",
    )
    findings.expect(
        "the ledger's entries are those of the reservation",
        (ledger.entries_settled, ledger.entries_released) == (ledger.settled, ledger.released),
        f"{ledger.entries_settled} settled, {ledger.entries_released} released",
    )
    findings.expect(
        "settled is the cost of what was sent",
        ledger.settled == used,
        f"{ledger.settled} settled, {used} sent",
    )
    findings.expect(
        "the ledger sums to the balance",
        (ledger.ledger_available, ledger.ledger_reserved) == (ledger.available, ledger.reserved),
        f"{ledger.ledger_available} and {ledger.ledger_reserved} in the ledger, "
        f"{ledger.available} available and {ledger.reserved} reserved",
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _named(references: Sequence[str]) -> str:
    rest = len(references) - MOST_NAMED
    return ", ".join(references[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
