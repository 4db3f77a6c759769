"""Dispatch: the deployed function from claim to settled result, beside a bare loop that posts the same bodies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from infra.bench import audience, bodies
from infra.bench.audience import Audience
from infra.bench.figures import Figure, cpu_seconds, largest_memory_mebibytes, median
from infra.bench.scene import Scene
from infra.local.settings import CHECKOUT

RATIO_BOUND = 0.6
MEMORY_BOUND_MEBIBYTES = 150
SPEED_UP_BOUND = 1.6
CORES_FOR_TWO = 4  # two for the dispatchers; the stand-in, the database and its doors have to run as well
IN_FLIGHT = 50
FEW, MANY = 5_000, 50_000
ENOUGH = 20_000  # for a pace: a dispatcher's start and end take a tenth of a second, which is no pace
QUICK_FEW, QUICK_MANY = 200, 400
FIRST, SECOND = "dispatch-deliveries-1", "dispatch-deliveries-2"


def measure(scene: Scene, *, quick: bool) -> list[Figure]:
    """One dispatcher beside its bare limit, its memory at two sizes, and two dispatchers beside one."""
    few, many = (QUICK_FEW, QUICK_MANY) if quick else (FEW, MANY)
    runs = 1 if quick else 5
    scene.carriers.knobs(all={"receipts": "off"})
    scene.report(f"dispatch: making {many:,} people")
    small = audience.make(scene.sql, scene.owner_id, few, plain=True)
    large = audience.make(scene.sql, scene.owner_id, many, plain=True)
    enough = small if quick else audience.make(scene.sql, scene.owner_id, ENOUGH, plain=True)
    _only(scene, FIRST)
    _dispatch(scene, small, FIRST)  # imports what a first run imports
    pairs = [_pair(scene, enough, f"run {run} of {runs}") for run in range(1, runs + 1)]
    memory = _memory(scene, small, large)
    speed_up = _speed_up(scene, enough, 1 if quick else 3)
    return [_ratio(pairs), memory, speed_up]


def _only(scene: Scene, *names: str) -> None:
    """Fresh dispatchers, so many and no more: none kicks another."""
    os.environ["DISPATCH_MAX_WORKERS"] = str(len(names))
    os.environ["DISPATCH_IN_FLIGHT"] = str(IN_FLIGHT)
    for name in names:
        scene.stack.restart(name)


def _pair(scene: Scene, made: Audience, which: str) -> dict[str, float]:
    """A dispatch and, on the same bodies, the bare loop."""
    scene.report(f"dispatch: {made.people:,} messages, {which}")
    found = _dispatch(scene, made, FIRST)
    posts = bodies.posts(scene, str(found.pop("alert_id")))
    scene.carriers.reset()
    bare = _bare(scene, posts)
    assert bare["posted"] == found["messages"], "the stand-in refused what the dispatcher could send"
    return {**found, **{f"bare_{name}": value for name, value in bare.items()}}


def _dispatch(scene: Scene, made: Audience, *names: str) -> dict[str, Any]:
    """Everything of one alert, sent by the named dispatchers at once."""
    scene.forget_deliveries()
    scene.carriers.reset()
    alert_id, answer = scene.send(made)
    ids = scene.process_ids()
    others = {name: ids[name] for name in ("carriers", "postgres", "postgrest", "gateway")}
    before = {name: cpu_seconds(id_) for name, id_ in others.items()}
    cpu, begun = cpu_seconds(*(ids[name] for name in names)), time.perf_counter()
    with ThreadPoolExecutor(len(names)) as executor:
        tallies = list(executor.map(lambda name: _start(scene, name), names))
    seconds = time.perf_counter() - begun
    messages = answer["planned"]
    accepted = sum(tally.get("sms", {}).get("accepted", 0) for tally in tallies)
    assert accepted == messages, f"{accepted} of {messages} messages were accepted: {tallies}"
    return {
        "alert_id": alert_id,
        "messages": messages,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds(*(ids[name] for name in names)) - cpu,
        **{f"{name}_cpu_seconds": cpu_seconds(id_) - before[name] for name, id_ in others.items()},
    }


def _start(scene: Scene, name: str) -> dict[str, Any]:
    """Kick one dispatcher and wait for its tally. Nobody else takes part: two may come one after the other."""
    secret = {"Authorization": f"Bearer {scene.settings.secrets.dispatch_secret}"}
    answer = scene.post(f"http://127.0.0.1:{scene.stack.running[name].port}/", {"hop": 0}, secret)
    assert answer.status == 200, answer.data.decode(errors="replace")[:500]
    document: dict[str, Any] = answer.json()
    tally: dict[str, Any] = document["tally"]
    return tally


def _bare(scene: Scene, posts: list[tuple[str, dict[str, str], bytes]]) -> dict[str, float]:
    url, headers, _ = posts[0]
    order = scene.settings.home / "bodies.json"
    order.write_text(
        json.dumps({"url": url, "headers": headers, "bodies": [body.decode() for _, _, body in posts]})
    )
    command = [sys.executable, "-m", "infra.bench.bare_sender", str(order), str(IN_FLIGHT)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=300)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _ratio(pairs: list[dict[str, float]]) -> Figure:
    messages = pairs[0]["messages"]
    ratio = median([pair["bare_seconds"] / pair["seconds"] for pair in pairs])
    return Figure(
        "dispatch_ratio", "messages/s", messages / median([pair["seconds"] for pair in pairs]),
        bare=messages / median([pair["bare_seconds"] for pair in pairs]), ratio=ratio, judged=ratio, bound=RATIO_BOUND,
        details={
            "messages": messages, "in_flight": IN_FLIGHT, "seconds": [pair["seconds"] for pair in pairs],
            "bare_seconds": [pair["bare_seconds"] for pair in pairs],
            "cpu_microseconds_a_message": _cpu_microseconds(pairs),
        },
    )  # fmt: skip


def _cpu_microseconds(pairs: list[dict[str, float]]) -> dict[str, float]:
    """What a message costs each process: steady while others use the machine too."""
    names = [name for name in pairs[0] if name.endswith("cpu_seconds")]
    return {
        name.removesuffix("cpu_seconds").strip("_") or "dispatcher": median([pair[name] for pair in pairs])
        * 1e6
        / pairs[0]["messages"]
        for name in names
    }


def _memory(scene: Scene, *audiences: Audience) -> Figure:
    """The dispatcher's largest resident set in a fresh process, for each size."""
    found: dict[str, float] = {}
    for made in audiences:
        scene.report(f"dispatch: memory at {made.people:,} messages")
        _only(scene, FIRST)
        _dispatch(scene, made, FIRST)
        found[str(made.people)] = largest_memory_mebibytes(scene.process_ids()[FIRST])
    return Figure(
        "dispatch_memory", "MiB", max(found.values()), bound=MEMORY_BOUND_MEBIBYTES, at_most=True,
        details={"by_messages": found},
    )  # fmt: skip


def _speed_up(scene: Scene, made: Audience, runs: int) -> Figure:
    """Two dispatchers beside one. The bound is for a machine that has two cores for them alone."""
    alone, together = [], []
    found: dict[str, Any] = {}
    for run in range(1, runs + 1):
        scene.report(f"dispatch: one beside two, run {run} of {runs}")
        _only(scene, FIRST)
        found = _dispatch(scene, made, FIRST)
        alone.append(found["seconds"])
        _only(scene, FIRST, SECOND)
        together.append(_dispatch(scene, made, FIRST, SECOND)["seconds"])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    speed_up = median([one / two for one, two in zip(alone, together, strict=True)])
    return Figure(
        "dispatch_two", "messages/s", found["messages"] / median(together), bare=found["messages"] / median(alone),
        ratio=speed_up, judged=speed_up, bound=SPEED_UP_BOUND,
        condition="" if cores >= CORES_FOR_TWO else f"{cores} cores, and the stand-in and the database need them too",
        details={"cores": cores, "seconds": together, "seconds_alone": alone},
    )  # fmt: skip
