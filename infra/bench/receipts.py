"""Receipts: signed callbacks through delivery-webhook, beside the same server that answers 204 and does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from infra.bench import audience, callbacks, caller, served
from infra.bench.figures import Figure, cpu_seconds, median
from infra.bench.scene import Scene
from infra.local.settings import CHECKOUT

RATIO_BOUND = 0.4
CONNECTIONS = 64
MANY = 5_000
QUICK_MANY = 100
# as record_results leaves them; the providers' ids are what a stand-in would give
_HANDED_OVER = """
update public.deliveries
set state = 'handed_over', claimable_at = null, attempt = 1, handed_over_at = now(), state_changed_at = now(),
  provider_id = 'SM' || md5(number::text || alert_id::text)
where alert_id = %s and state = 'planned'
"""


def measure(scene: Scene, *, quick: bool) -> list[Figure]:
    """Callbacks a second: each verified, stored, projected and committed before its answer."""
    many, runs = (QUICK_MANY, 1) if quick else (MANY, 5)
    made = audience.make(scene.sql, scene.owner_id, many, plain=True)
    pairs = []
    port = scene.settings.ports.function(9)
    with served.running(scene, served.bare(scene, "nothing", port)) as bare:
        for run in range(1, runs + 1):
            scene.report(f"receipts: {many:,} callbacks, run {run} of {runs}")
            pairs.append(_pair(scene, made, port, bare.pid))
    return [_figure(pairs)]


def _pair(scene: Scene, made: audience.Audience, bare_port: int, bare_id: int) -> dict[str, Any]:
    scene.forget_deliveries()
    scene.sql.execute("truncate private.receipts")
    alert_id, _ = scene.send(made)
    scene.sql.execute(_HANDED_OVER.encode(), (alert_id,))
    scene.sql.execute("vacuum (analyze) public.deliveries")
    requests = callbacks.prepare(scene, alert_id, "delivered")
    file = scene.settings.home / "callbacks"
    file.write_bytes(caller.pack(requests))
    running = scene.stack.running["delivery-webhook"]
    others = {name: scene.process_ids()[name] for name in ("postgres", "postgrest", "gateway")}
    before = {name: cpu_seconds(id_) for name, id_ in others.items()}
    found = _call(str(file), running.port or 0, running.pid)
    used = {f"{name}_cpu_seconds": cpu_seconds(id_) - before[name] for name, id_ in others.items()}
    bare = _call(str(file), bare_port, bare_id)
    for each in (found, bare):
        assert each["statuses"].get("204") == len(requests), each
    arrived = scene.sql.execute(
        "select count(*) from public.deliveries where alert_id = %s and state = 'delivered'", (alert_id,)
    ).fetchone()
    assert arrived == (len(requests),), f"{arrived} of {len(requests)} receipts were applied"
    named = {f"bare_{name}": value for name, value in bare.items()}
    return {"callbacks": len(requests), **found, **used, **named}


def _call(file: str, port: int, server_id: int) -> dict[str, Any]:
    cpu = cpu_seconds(server_id)
    command = [sys.executable, "-m", "infra.bench.caller", file, str(port), str(CONNECTIONS)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=300)
    result: dict[str, Any] = json.loads(done.stdout)
    used = cpu_seconds(server_id) - cpu
    return {"seconds": result["seconds"], "statuses": result["statuses"], "cpu_seconds": used}


def _figure(pairs: list[dict[str, Any]]) -> Figure:
    callbacks_sent = pairs[0]["callbacks"]
    ratio = median([pair["bare_seconds"] / pair["seconds"] for pair in pairs])
    return Figure(
        "receipts_ratio", "callbacks/s", callbacks_sent / median([pair["seconds"] for pair in pairs]),
        bare=callbacks_sent / median([pair["bare_seconds"] for pair in pairs]), ratio=ratio, judged=ratio,
        bound=RATIO_BOUND,
        details={
            "callbacks": callbacks_sent, "connections": CONNECTIONS,
            "late": sum(pair["statuses"].get("late", 0) for pair in pairs),
            "seconds": [pair["seconds"] for pair in pairs], "bare_seconds": [pair["bare_seconds"] for pair in pairs],
            "cpu_microseconds_a_callback": {
                name.removesuffix("cpu_seconds").strip("_") or "delivery_webhook":
                median([pair[name] for pair in pairs]) * 1e6 / callbacks_sent
                for name in pairs[0] if name.endswith("cpu_seconds")
            },
        },
    )  # fmt: skip
