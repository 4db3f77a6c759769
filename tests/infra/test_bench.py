"""The bench runs whole on tiny sizes and says everything that issue 2 asks for. No timing is asserted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.bench import report
from infra.bench.__main__ import MEASURES, main
from infra.bench.figures import Figure, median
from infra.local.settings import CHECKOUT
from tests.support.ports import free_port_base

JUDGED = {
    "cold_start_delivery-webhook": (1.8, True),
    "cold_start_send-alert": (2.2, True),
    "cold_start_dispatch-deliveries": (2.4, True),
    "dispatch_ratio": (0.6, False),
    "dispatch_memory": (150, True),
    "dispatch_two": (1.6, False),
    "receipts_ratio": (0.4, False),
    "fan_out_ratio": (0.20, False),
    "fan_out_rate": (40_000, False),
    "fan_out_growth": (1.2, True),
}
COMPARED = {"naive_sms", "naive_email"}


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A directory for temporary files that PostgreSQL's own user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="credoalert-tests-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> dict[str, Any]:
    """What a quick run writes, in a process of its own as `make bench` runs it."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, "-m", "infra.bench", "--quick", "--json", str(file)]
    command += ["--port-base", str(free_port_base())]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(file.read_text())
    return found


@pytest.mark.timeout(300)
def test_quick_run_gives_every_figure_with_its_bound(document: dict[str, Any]) -> None:
    figures = {figure["name"]: figure for figure in document["figures"]}
    assert set(figures) == set(JUDGED) | COMPARED
    for name, (bound, at_most) in JUDGED.items():
        assert (figures[name]["bound"], figures[name]["at_most"]) == (bound, at_most), name
    assert all(figure["value"] > 0 for figure in figures.values())
    assert all(figures[name]["is_ok"] is None for name in COMPARED)


def test_quick_run_tells_what_the_figures_depend_on(document: dict[str, Any]) -> None:
    assert document["quick"] is True
    assert {"cores", "load_before", "load_after", "python", "postgres"} <= set(document["machine"])
    assert document["machine"]["postgres"].startswith("17")


def test_quick_run_leaves_nothing_behind(document: dict[str, Any], temporary: Path) -> None:
    assert document["figures"]
    assert list(temporary.iterdir()) == []


def test_verdict_follows_the_bound_and_its_direction() -> None:
    assert Figure("a", "x", 5, bound=4).is_ok is True
    assert Figure("a", "x", 5, bound=4, at_most=True).is_ok is False
    assert Figure("a", "x", 5, judged=3, bound=4).is_ok is False
    assert Figure("a", "x", 5, bound=9, condition="one core").is_ok is None
    assert Figure("a", "x", 5).is_ok is None
    assert median([9, 1, 5]) == 5


def test_table_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    figures = [
        Figure("short_one", "x", 5, bound=9),
        Figure("left_out", "x", 5, bound=9, condition="one core"),
    ]
    report.table(figures, {"cores": 2, "load_before": 0.0, "load_after": 0.0})
    shown = capsys.readouterr().out
    assert "short_one" in shown
    assert "left_out is not judged: one core" in shown


def test_unknown_measure_is_refused_with_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "fan_out,tea"])
    said = capsys.readouterr().err
    assert all(name in said for name in MEASURES)
