"""Fan-out: `send_alert` with everything on, beside a bare `insert ... select` of the rows that it wrote."""

from __future__ import annotations

import time

from infra.bench import audience
from infra.bench.audience import Audience
from infra.bench.figures import Figure, cpu_seconds, median
from infra.bench.scene import Scene

RATIO_BOUND = 0.20
ROWS_BOUND = 40_000
GROWTH_BOUND = 1.2
FEW, MANY = 100_000, 1_000_000
QUICK_FEW, QUICK_MANY = 1_000, 3_000


def measure(scene: Scene, *, quick: bool) -> list[Figure]:
    """Rows a second for a hundred thousand people, and what a row costs when there are a million."""
    few, many = (QUICK_FEW, QUICK_MANY) if quick else (FEW, MANY)
    small = _runs(scene, few, 1 if quick else 5)
    large = _runs(scene, many, 1 if quick else 2)
    seconds, bare_seconds = median(small["seconds"]), median(small["bare_seconds"])
    growth = (median(large["seconds"]) / many) / (seconds / few)
    cpu_growth = (median(large["cpu_seconds"]) / many) / (median(small["cpu_seconds"]) / few or 1)
    ratio = median([bare / real for bare, real in zip(small["bare_seconds"], small["seconds"], strict=True)])
    cpu_ratio = median(small["bare_cpu_seconds"]) / (median(small["cpu_seconds"]) or 1)
    return [
        Figure(
            "fan_out_ratio", "rows/s", few / seconds, bare=few / bare_seconds, ratio=ratio, judged=ratio,
            bound=RATIO_BOUND, details={"people": few, "cpu_ratio": cpu_ratio, **small},
        ),
        Figure("fan_out_rate", "rows/s", few / seconds, bound=ROWS_BOUND, details={"people": few}),
        Figure(
            "fan_out_growth", "times a row", growth, bound=GROWTH_BOUND, at_most=True,
            details={
                "people": many, "rows_a_second": many / median(large["seconds"]), "cpu_growth": cpu_growth, **large,
            },
        ),
    ]  # fmt: skip


def _runs(scene: Scene, people: int, runs: int) -> dict[str, list[float]]:
    scene.report(f"fan-out: making {people:,} people")
    made = audience.make(scene.sql, scene.owner_id, people)
    scene.sql.execute("drop table if exists public.bare")
    scene.sql.execute(
        "create table public.bare (like public.deliveries, primary key (organisation_id, alert_id, number))"
    )
    found: dict[str, list[float]] = {}
    for run in range(1, runs + 1):
        scene.report(f"fan-out: {people:,} people, run {run} of {runs}")
        for name, value in _run(scene, made).items():
            found.setdefault(name, []).append(value)
    scene.sql.execute("drop table public.bare")
    scene.forget_deliveries()
    audience.forget(scene.sql, made)
    return found


def _run(scene: Scene, made: Audience) -> dict[str, float]:
    """One fan-out and right after it the same rows, bare: both commit to disk."""
    scene.forget_deliveries()
    scene.sql.execute("truncate public.bare")
    database = scene.process_ids()["postgres"]
    cpu, begun = cpu_seconds(database), time.perf_counter()
    alert_id, answer = scene.send(made)
    seconds, cpu_used = time.perf_counter() - begun, cpu_seconds(database) - cpu
    assert answer["recipients"] == made.people
    scene.sql.execute("checkpoint")
    cpu, begun = cpu_seconds(database), time.perf_counter()
    scene.sql.execute(
        "insert into public.bare select * from public.deliveries where organisation_id = %s and alert_id = %s",
        (made.organisation_id, alert_id),
    )
    bare, bare_cpu = time.perf_counter() - begun, cpu_seconds(database) - cpu
    return {"seconds": seconds, "bare_seconds": bare, "cpu_seconds": cpu_used, "bare_cpu_seconds": bare_cpu}
