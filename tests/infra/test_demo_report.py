"""The demo's report: the JSON has all of it and nothing personal, the tables and the chart can be made."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from rich.console import Console

from infra.local.demo import chart, document, figures, tables
from infra.local.demo.options import Faults, Options, default_kills, default_limit_seconds
from infra.local.demo.people import Crowd
from infra.local.demo.reconcile import reconcile
from infra.local.demo.run import Outcome
from infra.local.demo.scene import Scene
from infra.local.demo.send import Sent
from infra.local.demo.watch import Kill, Killer, Watched
from infra.local.settings import CHECKOUT, Ports, Secrets, Settings
from infra.local.stack import Stack
from shared.contacts import ImportReport
from tests.infra.test_demo_reconcile import SKIPPED, evidence

PARTS = {
    "options", "import", "alert", "quote", "answer", "channels", "phases", "rates", "kills", "receipts", "ledger",
    "reconciliation", "failures", "reconciles",
}  # fmt: skip


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    found = evidence()
    stack = Stack(Settings(tmp_path, Ports(1), Secrets.draw()))
    killer = Killer(stack, 1, Random(1), kills=[Kill("dispatch-deliveries-1", 0.4, 3)])
    crowd = Crowd(mix={"people": 2, "invalid": 1})
    refused = [{"file": "FR", "row": 2, "column": "name", "reason": "is missing"}]
    imported = ImportReport(created=2, refused_count=1, refused=refused)
    return Outcome(
        options=Options(recipients=2, kills=1),
        scene=Scene(UUID(int=9), {}, {}, UUID(int=8), crowd, imported),
        sent=Sent({"credits": 22}, found.answer, 0.1, 0.2, begun_at=10.0),
        watched=Watched(0.6, 2.1, ""),
        killer=killer,
        evidence=found,
        findings=reconcile(found, people=2, planted=SKIPPED),
        import_seconds=0.3,
    )


def test_the_document_has_every_part_and_is_json(outcome: Outcome) -> None:
    whole = json.loads(json.dumps(document.document(outcome)))
    assert set(whole) == PARTS
    assert whole["reconciles"] is True
    assert whole["channels"]["sms"] == {
        "paths": 2, "planned": 1, "skipped": {"duplicate_path": 1}, "sent": 1, "delivered": 1, "failed": {},
        "awaiting_receipt": 0, "dead_letter": 0, "answered": 0, "credits": 7,
        "seconds_to_accept": {"p50": 0.5, "p95": 0.5}, "seconds_to_deliver": {"p50": 1.0, "p95": 1.0},
    }  # fmt: skip
    assert whole["reconciliation"]["channels"]["email"] == {
        "rows": 2, "claimed_sent": 1, "accepted": 1, "accepted_once": 1, "duplicates": 0, "flagged": 0,
        "repeated": 0, "missing": 0, "strangers": 0, "misnamed": 0, "references": {},
    }  # fmt: skip
    assert whole["rates"] == {
        "messages_accepted": 4, "seconds": 0.6, "messages_per_second": 6.7,
        "seconds_of_95_percent": 0.5, "messages_per_second_of_95_percent": 6.0,
    }  # fmt: skip


def test_the_document_holds_no_secret_and_no_path(outcome: Outcome) -> None:
    text = json.dumps(document.document(outcome))
    assert str(CHECKOUT) not in text
    assert outcome.killer.stack.settings.secrets.secret_key not in text
    assert str(outcome.killer.stack.settings.home) not in text


def test_the_tables_show_the_figures_and_the_verdict(outcome: Outcome) -> None:
    console = Console(file=io.StringIO(), width=120)
    tables.show(outcome, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "is missing",
        "skipped: duplicate_path",
        "failed: exhausted",
        "22 reserved = 21 settled + 1 released",
    ):
        assert words in text
    assert "everything reconciles" in text


def test_a_failure_is_a_sentence_in_the_tables(outcome: Outcome) -> None:
    outcome.findings.failures.append("sms: 1 rows say sent [bold]and[/] nobody took them")
    console = Console(file=io.StringIO(), width=120)
    tables.show(outcome, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "✗ sms: 1 rows say sent [bold]and[/] nobody took them" in text
    assert "everything reconciles" not in text
    assert document.document(outcome)["reconciles"] is False


def test_the_chart_is_a_png_of_a_readable_size(outcome: Outcome, tmp_path: Path) -> None:
    path = tmp_path / "new" / "chart.png"
    chart.save(outcome, path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) >= 1200


def test_percentiles_of_nothing_are_none() -> None:
    assert figures.percentiles([None]) == {"p50": None, "p95": None}
    assert figures.percentiles([None, *map(float, range(100))]) == {"p50": 50.0, "p95": 95.0}


def test_a_storm_kills_ten_dispatchers_unless_asked_otherwise() -> None:
    assert [default_kills(faults) for faults in Faults] == [0, 0, 10]


def test_the_limit_grows_with_the_recipients_and_the_storm() -> None:
    assert default_limit_seconds(100, Faults.NONE) == 600
    assert default_limit_seconds(20_000, Faults.STANDARD) == 1200
    assert default_limit_seconds(100, Faults.STORM) == 1200
