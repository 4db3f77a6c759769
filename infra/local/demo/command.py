"""`credoalert demo`: one alert to thousands of invented people on the embedded stack, reconciled to the last credit."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from infra.local.demo.options import (
    Faults,
    Options,
    apply_quick_settings,
    default_kills,
    default_limit_seconds,
)

if TYPE_CHECKING:
    from infra.local.demo.run import Outcome
    from infra.local.stack import Stack

Recipients = Annotated[int, typer.Option(min=1, max=100_000, help="People to invent and to reach.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed invents the same people and faults.")]
FaultsOption = Annotated[Faults, typer.Option(help="How the stand-in carriers misbehave.")]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write everything to this file.", show_default=False)
]
Chart = Annotated[Path, typer.Option(help="Write the chart (PNG) to this file.")]
Home = Annotated[Path | None, typer.Option(help="The directory that the stack lives in.", show_default=False)]
PortBase = Annotated[int | None, typer.Option(help="Use the 20 ports above this one.", show_default="54320")]
Kills = Annotated[
    int | None,
    typer.Option(
        "--kill-dispatchers", min=0, max=100, show_default="10 in a storm, else 0",
        help="Kill dispatcher processes (SIGKILL) so often on the way.",
    ),
]  # fmt: skip
Limit = Annotated[
    float | None,
    typer.Option(
        "--limit-seconds",
        min=1,
        help="Give up after so long.",
        show_default="600, more for many recipients and in a storm",
    ),
]


def demo(
    recipients: Recipients = 5000,
    seed: Seed = 7,
    faults: FaultsOption = Faults.NONE,
    json_path: Json = None,
    chart: Chart = Path("build/demo.png"),
    home: Home = None,
    port_base: PortBase = None,
    kill_dispatchers: Kills = None,
    limit_seconds: Limit = None,
) -> None:
    """Send one urgent alert by SMS, e-mail, voice and webhook, and reconcile it with the carriers' journal.

    Starts the stack when it is not up, and stops it again. Exit status 1 when anything does not reconcile.
    """
    from infra.local.cli import explained, open_stack  # it imports this module

    options = Options(
        recipients=recipients,
        seed=seed,
        faults=faults,
        kills=default_kills(faults) if kill_dispatchers is None else kill_dispatchers,
        limit_seconds=limit_seconds or default_limit_seconds(recipients, faults),
    )
    with explained():
        outcome = on_stack(open_stack(home, port_base), options)
        _write(outcome, json_path, chart)
    if outcome.failures:
        raise typer.Exit(1)


def on_stack(stack: Stack, options: Options) -> Outcome:
    """Play the demo; a stack that was not up before is stopped in any case. Raises LocalStackError."""
    from infra.local import display
    from infra.local.demo import run

    was_up = stack.is_up
    if not was_up:
        apply_quick_settings(os.environ)
    with display.progress() as report:
        stack.up(report=report)
    try:
        with run.refusals_explained():
            return run.play(stack, options, Console(stderr=True, highlight=False))
    finally:
        if not was_up:
            stack.down()


def _write(outcome: Outcome, json_path: Path | None, chart_path: Path) -> None:
    from infra.local.demo import chart, document, tables

    console = Console(highlight=False)
    tables.show(outcome, console)
    chart.save(outcome, chart_path)
    console.print(f"chart: {chart_path}", soft_wrap=True)
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document.document(outcome), indent=1, ensure_ascii=False) + "\n")
        console.print(f"everything: {json_path}", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(demo)
