"""What processes used: CPU seconds and the most memory, from Linux's /proc. Zero where there is none."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir() if PROC.exists() else ():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children.get(one, [])
    return found


def cpu_seconds(*roots: int) -> float:
    """CPU seconds of processes and their descendants so far, those of ended children included."""
    ticks = 0
    for root in roots:
        for pid in family(root):
            fields = _stat(pid)
            ticks += sum(int(each) for each in fields[11:13])
            ticks += sum(int(each) for each in fields[13:15])
    return ticks / _TICKS_A_SECOND


def most_memory_mib(pid: int) -> float:
    """The most resident memory (VmHWM) that any one process of the family has had, in MiB."""
    return max((_high_water_kib(each) for each in family(pid)), default=0) / 1024


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _high_water_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    # the second field is the program's name in brackets and may hold spaces
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
