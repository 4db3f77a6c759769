"""The run: set the scene, send one alert, watch it, gather the evidence, judge it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from postgrest.exceptions import APIError
from rich.console import Console
from supabase_auth.errors import AuthError

from infra.local.carriers.client import Carriers, CarriersError
from infra.local.demo import evidence, local_run, progress, scene, send
from infra.local.demo.evidence import Connection, Evidence
from infra.local.demo.options import Options
from infra.local.demo.reconcile import Findings, reconcile
from infra.local.demo.scene import Scene
from infra.local.demo.send import Sent
from infra.local.demo.watch import Killer, Watched, watch
from infra.local.settings import LocalStackError
from infra.local.stack import Stack
from shared.errors import AppError


@dataclass(slots=True, frozen=True)
class Outcome:
    """Everything that the report shows."""

    options: Options
    scene: Scene
    sent: Sent
    watched: Watched
    killer: Killer
    evidence: Evidence
    findings: Findings
    import_seconds: float

    @property
    def failures(self) -> list[str]:
        """One sentence for each thing that does not fit; empty when everything reconciles."""
        return self.findings.failures


def play(stack: Stack, options: Options, console: Console) -> Outcome:
    """One demo on a stack that is up. Raises LocalStackError and what the doors raise; a misfit is in `failures`."""
    with _connected(stack) as (sql, carriers):
        console.print(
            "Senders are set to full pace for this run (private.senders): the cautious defaults would take hours.",
            style="dim",
        )
        with (
            local_run.full_pace(sql),
            local_run.carriers_with(carriers, options.faults, options.seed),
            progress.bars(console) as bars,
        ):
            return _play(stack, options, sql, carriers, bars)


def _play(
    stack: Stack, options: Options, sql: Connection, carriers: Carriers, bars: progress.Bars
) -> Outcome:
    counts = carriers.counts()
    journal_after = sum(counts[channel]["accepted"] for channel in counts if channel != "receipts")
    begun = time.monotonic()
    with bars.step("people"):
        setting = scene.set_up(stack.settings, options.recipients, options.seed)
    import_seconds = time.monotonic() - begun
    with bars.step("fan-out"):
        sent = send.send(stack.settings, setting)
    killer = Killer(stack, options.kills, Random(options.seed))  # noqa: S311 -- moments, not secrets
    alert_id = UUID(sent.answer["alert_id"])
    watched = watch(
        stack, sql, carriers, setting.organisation_id, alert_id,
        killer=killer, begun_at=sent.begun_at, limit_seconds=options.limit_seconds, show=bars.show,
    )  # fmt: skip
    found = evidence.gather(
        sql, carriers, setting.organisation_id,
        answer=sent.answer, report=_report(setting, alert_id), journal_after=journal_after,
    )  # fmt: skip
    findings = reconcile(found, people=options.recipients, planted=planted(setting, found))
    _judge_run(options, setting, sent, watched, killer, findings)
    return Outcome(options, setting, sent, watched, killer, found, findings, import_seconds)


def _report(setting: Scene, alert_id: UUID) -> dict[str, Any]:
    """The report as a viewer sees it."""
    viewer = setting.members["viewer"]
    report: dict[str, Any] = viewer.db.rpc(
        "alert_report", p_organisation_id=str(setting.organisation_id), p_alert_id=str(alert_id)
    )
    return report


def planted(setting: Scene, found: Evidence) -> Mapping[str, int]:
    """Rows that the fan-out has to skip, by reason, from what was put into the import files.

    Of k rows on one phone that opted out all are skipped as opted out, on any other all but one as duplicates; so
    these two are known together, and how they split is taken from the answer.
    """
    mix = Counter(setting.crowd.mix)
    people = mix["people"]
    opted_out = found.answer["skipped"].get("opted_out", 0)
    on_phones = 2 * (mix["sharing_a_phone"] + len(setting.crowd.opted_out))  # by sms and by voice
    expected = {
        "no_address": 2 * mix["without_phone"] + 2 * people - mix["with_email"] - mix["with_endpoint"],
        "opted_out": opted_out,
        "duplicate_path": on_phones - opted_out + mix["sharing_an_endpoint"],
        "suppressed": len(setting.crowd.bounced),
    }
    return {reason: count for reason, count in expected.items() if count}


def _judge_run(
    options: Options, setting: Scene, sent: Sent, watched: Watched, killer: Killer, findings: Findings
) -> None:
    """What the reconciliation can't know: the import, the quote, the time and the kills."""
    imported, mix = setting.imported, setting.crowd.mix
    findings.expect(
        "every good row was imported and every bad one refused",
        (imported.created, imported.refused_count) == (mix["people"], mix["invalid"]),
        f"{imported.created} of {mix['people']} imported, {imported.refused_count} of {mix['invalid']} refused",
    )
    quoted, reserved = sent.quote["credits"], sent.answer["credits_reserved"]
    findings.expect(
        "the quote is the reservation", quoted == reserved, f"{quoted} quoted, {reserved} reserved"
    )
    if watched.still_open:
        findings.failures.insert(
            0,
            f"the limit of {options.limit_seconds:.0f} s came with {watched.still_open} (the rest was read meanwhile)",
        )
    if len(killer.kills) < options.kills:
        findings.failures.append(
            f"only {len(killer.kills)} of {options.kills} dispatchers could be killed before everything was sent: "
            "ask for fewer, or for more recipients"
        )


@contextmanager
def refusals_explained() -> Iterator[None]:
    """What the API, the database or the carriers refuse becomes a LocalStackError, which the command line explains."""
    try:
        yield
    except AppError as error:
        raise LocalStackError(f"the API refused: {error.code}: {error.detail}") from error
    except (APIError, AuthError) as error:
        raise LocalStackError(f"the API refused: {error}") from error
    except (psycopg.Error, CarriersError) as error:
        raise LocalStackError(f"the stack failed: {error}") from error


@contextmanager
def _connected(stack: Stack) -> Iterator[tuple[Connection, Carriers]]:
    carriers = Carriers(stack.settings.carriers_url)
    try:
        with psycopg.connect(stack.settings.db_url, autocommit=True) as sql:
            yield sql, carriers
    finally:
        carriers.close()
