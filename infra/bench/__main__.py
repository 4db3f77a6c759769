"""`python -m infra.bench`: run the measurements, show the table, write the JSON. Exit status 0 unless --check."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from infra.bench import cold_start, dispatch, fan_out, naive, receipts, report, scene
from infra.bench.figures import Figure

MEASURES: dict[str, Callable[..., list[Figure]]] = {
    "cold_start": cold_start.measure,
    "dispatch": dispatch.measure,
    "receipts": receipts.measure,
    "naive": naive.measure,
    "fan_out": fan_out.measure,
}
DEFAULT_PORT_BASE = 27400
# what a run needs beyond the stack's defaults: a budget that no measure ends, and one dispatcher at a time
ENVIRONMENT = {"DISPATCH_BUDGET_SECONDS": "300", "DISPATCH_MAX_WORKERS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a measure could not be made, and with --check when a bound is missed."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    failed: dict[str, str] = {}
    figures, begun, load_before = [], time.perf_counter(), os.getloadavg()
    with (
        report.progress() as say,
        scene.raised(options.port_base, say, ENVIRONMENT) as stage,
    ):
        for name in options.only:
            try:
                figures += MEASURES[name](stage, quick=options.quick)
            except Exception as error:  # the others' figures are worth having
                failed[name] = f"{type(error).__name__}: {error}"
                say(f"{name} failed: {failed[name]}")
        postgres = stage.sql.execute("show server_version").fetchone()
    document = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begun, 1),
        "quick": options.quick,
        "machine": _machine(load_before) | {"postgres": postgres[0] if postgres else ""},
        "failed": failed,
        "figures": [figure.document() for figure in figures],
    }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    report.table(figures, document["machine"])
    missed = options.check and any(figure.is_ok is False for figure in figures)
    return int(bool(failed) or missed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.bench", description=__doc__)
    parser.add_argument("--json", type=Path, help="write every figure with its details to this file")
    parser.add_argument("--only", type=_names, default=list(MEASURES), help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: tells that it runs, not how fast")
    parser.add_argument("--check", action="store_true", help="exit status 1 when a bound is missed")
    parser.add_argument(
        "--port-base", type=int, default=DEFAULT_PORT_BASE, help="use the 20 ports above this one"
    )
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(
            f"there is no {', '.join(unknown)}: choose among {', '.join(MEASURES)}"
        )
    return names


def _machine(load_before: tuple[float, float, float]) -> dict[str, Any]:
    """What the figures depend on; a load well above 0 before the run means that others were at work."""
    return {
        "cores": os.cpu_count(),
        "load_before": load_before[0],
        "load_after": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
