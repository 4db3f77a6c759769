"""The chart: what was handed over, delivered and answered, cumulated over time, a panel a channel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from infra.local.demo import figures
from infra.local.demo.evidence import Delivery
from infra.local.demo.options import CHANNELS
from infra.local.demo.run import Outcome

NAMES = {"sms": "SMS", "email": "E-mail", "voice": "Voice", "webhook": "Webhook"}
LINES = (
    ("handed_over", "handed over", "#9db4d3"),
    ("delivered", "delivered", "#1f5fa8"),
    ("answered", "answered", "#e07b39"),
)
INK, FAINT, PAPER = "#1b1f24", "#6b7480", "#ffffff"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#c9d1da",
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#edf0f3",
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
}


def save(outcome: Outcome, path: Path) -> None:
    """Write the chart as a PNG; its directory is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.2))  # without pyplot: no display, nothing global
        panels = figure.subplots(2, 2, sharex=True)
        end = _end(outcome)
        for axes, channel in zip(panels.flat, CHANNELS, strict=True):
            rows = [row for row in outcome.evidence.deliveries if row.channel == channel]
            _panel(axes, NAMES[channel], rows, [kill.at_seconds for kill in outcome.killer.kills], end)
        for axes in panels[1]:
            axes.set_xlabel("seconds since the send")
        _heading(figure, outcome)
        figure.subplots_adjust(left=0.07, right=0.98, top=0.83, bottom=0.09, hspace=0.22, wspace=0.14)
        figure.savefig(path, dpi=160)


def _end(outcome: Outcome) -> float:
    times = [
        value
        for row in outcome.evidence.deliveries
        for value in (row.handed_over, row.delivered, row.answered)
        if value is not None
    ]
    return max(times, default=1.0)


def _panel(axes: Any, name: str, rows: Sequence[Delivery], kills: Sequence[float], end: float) -> None:
    for attribute, _, colour in LINES:
        times = sorted(value for row in rows if (value := getattr(row, attribute)) is not None)
        if times:
            counts = [0, *range(1, len(times) + 1), len(times)]
            places = [0.0, *(max(0.0, time) for time in times), end]
            axes.plot(
                places, counts, color=colour, linewidth=1.8, drawstyle="steps-post", solid_capstyle="round"
            )
            if attribute == "delivered":
                axes.fill_between(places, counts, step="post", color=colour, alpha=0.08, linewidth=0)
    for at in kills:
        axes.axvline(at, color="#c0392b", linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    axes.set_title(name, loc="left", fontsize=10, fontweight="bold")
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, end * 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _heading(figure: Figure, outcome: Outcome) -> None:
    report, rates = outcome.evidence.report, figures.rates(outcome.evidence, outcome.sent.begun_at)
    deliver = report["seconds_to_deliver"]
    figure.text(
        0.07, 0.955, f"One alert to {outcome.options.recipients:,} people", fontsize=14, fontweight="bold"
    )
    facts = [
        f"{report['sent']:,} sent", f"{report['delivered']:,} delivered", f"{report['answered']:,} answered",
        f"{rates['messages_per_second']:,.0f} messages/s",
    ]  # fmt: skip
    if deliver["p50"] is not None:
        facts.append(f"delivered within {deliver['p50']:.1f} s (p50) and {deliver['p95']:.1f} s (p95)")
    facts.append(f"faults: {outcome.options.faults.value}")
    figure.text(0.07, 0.915, "  ·  ".join(facts), fontsize=9, color=FAINT)
    handles = [Line2D([], [], color=colour, linewidth=2.5, label=label) for _, label, colour in LINES]
    if outcome.killer.kills:
        handles.append(
            Line2D([], [], color="#c0392b", linewidth=1, linestyle=(0, (2, 3)), label="dispatcher killed")
        )
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(0.985, 0.985), ncols=len(handles), frameon=False
    )
