"""Dispatchers are killed while providers fail: nothing is lost, nobody gets two e-mails, every credit is accounted for."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from infra.local.demo import run
from infra.local.demo.options import Faults, Options
from infra.local.stack import Stack


@pytest.mark.timeout(500)
@pytest.mark.usefixtures("timer")
def test_a_storm_with_kills_reconciles_with_the_carriers_journal(stack: Stack) -> None:
    options = Options(150, faults=Faults.STORM, kills=4, limit_seconds=420, seed=11)
    outcome = run.play(stack, options, Console(file=io.StringIO()))
    assert outcome.failures == []
    assert len(outcome.killer.kills) == 4, "a kill that did not happen proves nothing"
