"""What a measurement says: a value, its bare limit, their ratio and the bound that the ratio has to keep."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True, frozen=True)
class Figure:
    """One line of the table. `bound` is about `judged`: at least that much, or at most where `at_most` is set.

    A figure without a bound is shown for comparison only. `condition` is set where a bound does not apply on this
    machine, and says why.
    """

    name: str
    unit: str
    value: float
    bare: float | None = None
    ratio: float | None = None
    bound: float | None = None
    at_most: bool = False
    judged: float | None = None
    condition: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool | None:
        """Whether the bound is kept; None where there is none or it does not apply."""
        if self.bound is None or self.condition:
            return None
        judged = self.value if self.judged is None else self.judged
        return judged <= self.bound if self.at_most else judged >= self.bound

    def document(self) -> dict[str, Any]:
        """For the JSON file, rounded to what means something."""
        document: dict[str, Any] = _rounded(asdict(self) | {"is_ok": self.is_ok})
        return document


def median(values: Sequence[float]) -> float:
    """The median; runs are few and one of them may be disturbed."""
    return statistics.median(values)


def cpu_seconds(*process_ids: int) -> float:
    """Processor seconds of these processes with all their children, living and reaped (Linux; elsewhere 0)."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    children: dict[int, list[int]] = {}
    used: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(words[1]), []).append(int(entry.name))
            used[int(entry.name)] = sum(int(word) for word in words[11:15])
    waiting, total = list(process_ids), 0
    while waiting:
        each = waiting.pop()
        total += used.get(each, 0)
        waiting += children.get(each, [])
    return total / TICKS_A_SECOND


def largest_memory_mebibytes(process_id: int) -> float:
    """The largest resident set that any process below this one ever had (VmHWM); 0 where the system can't tell."""
    largest = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if process_id in (int(lines["Pid"]), int(lines["PPid"])) and "VmHWM" in lines:
            largest = max(largest, int(lines["VmHWM"].split()[0]))
    return largest / 1024


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value
