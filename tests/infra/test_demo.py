"""The demo from end to end: some hundred people, a usual day's faults, everything reconciled."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console
from typer.testing import CliRunner

from infra.local.carriers.client import Carriers
from infra.local.cli import app
from infra.local.demo import document, run
from infra.local.demo.options import CHANNELS, Faults, Options
from infra.local.demo.people import Crowd
from infra.local.stack import Stack

Sql = psycopg.Connection[Any]
PEOPLE = 300


def pace(sql: Sql) -> list[tuple[Any, ...]]:
    query = "select channel, segments_per_second, burst from private.senders order by channel"
    return sql.execute(query).fetchall()


def personal(crowd: Crowd) -> set[str]:
    """Every name, external id and address of the invented people, as the import files have them."""
    rows = [row for file in crowd.files.values() for row in file]
    addresses = {each["value"] for row in rows for each in row.get("addresses", [])}
    return addresses | {row["name"] for row in rows if row["name"]} | {row["external_id"] for row in rows}


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("timer")
def test_one_alert_to_three_hundred_people_reconciles_on_a_usual_day(stack: Stack, sql: Sql) -> None:
    pace_before = pace(sql)
    carriers = Carriers(stack.settings.carriers_url)
    knobs_before = carriers.knobs()
    console = Console(file=io.StringIO())

    outcome = run.play(stack, Options(PEOPLE, faults=Faults.STANDARD, limit_seconds=300), console)

    assert outcome.failures == []
    whole = json.loads(json.dumps(document.document(outcome)))
    assert whole["alert"]["recipients"] == PEOPLE
    assert whole["alert"]["open"] == 0
    assert whole["import"]["refused_count"] == whole["import"]["mix"]["invalid"]
    assert set(whole["channels"]) == set(CHANNELS)
    assert whole["alert"]["answered"] > 0
    assert {"no_address", "duplicate_path", "opted_out"} <= set(whole["alert"]["skipped"])
    assert personal(outcome.scene.crowd).isdisjoint(json.dumps(whole).split('"')), (
        "a person is in the document"
    )
    assert pace(sql) == pace_before, "the senders' pace is put back"
    assert carriers.knobs() == knobs_before, "the carriers' knobs are put back"
    assert "private.senders" in console.file.getvalue()  # type: ignore[attr-defined]
    carriers.close()


def test_the_command_stops_with_a_sentence_where_there_is_no_place_for_a_stack(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("somebody's file")
    result = CliRunner().invoke(app, ["demo", "--home", str(tmp_path), "--recipients", "3"])
    assert result.exit_code == 1
    assert "holds other things already" in result.output


@pytest.mark.parametrize(
    "arguments",
    [["--recipients", "0"], ["--faults", "hurricane"], ["--kill-dispatchers", "-1"], ["--seed", "x"]],
)
def test_options_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["demo", *arguments]).exit_code == 2
