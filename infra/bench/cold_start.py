"""Cold start: from spawn to the first real answer of each function, beside a bare functions-framework hello."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from infra.bench import audience, callbacks, served
from infra.bench.figures import Figure, cpu_seconds, median
from infra.bench.scene import Scene
from infra.local.process import Component

BOUNDS = {"delivery-webhook": 1.8, "send-alert": 2.2, "dispatch-deliveries-1": 2.4}
HELLO = "hello"
GIVE_UP_SECONDS = 60.0

FirstCall = Callable[[], tuple[bytes, str]]  # a request, and the status that shows that it did its work


def measure(scene: Scene, *, quick: bool) -> list[Figure]:
    """Each function in turn, round after round, on a port of its own."""
    runs = 1 if quick else 5
    port = scene.settings.ports.function(8)
    first_calls = _first_calls(scene)
    found: dict[str, list[float]] = {name: [] for name in first_calls}
    cpu: dict[str, list[float]] = {name: [] for name in first_calls}
    for run in range(runs + 1):  # the first round fills the disk's cache and is not counted
        scene.report(f"cold start: run {run} of {runs}")
        for name, first_call in first_calls.items():
            seconds, cpu_used = _start(scene, _elsewhere(scene, name, port), first_call)
            if run:
                found[name].append(seconds)
                cpu[name].append(cpu_used)
    return [_figure(name, found, cpu) for name in BOUNDS]


def _elsewhere(scene: Scene, name: str, port: int) -> Component:
    """The component on another port, since the stack's own keeps running."""
    if name == HELLO:
        return served.bare(scene, HELLO, port)
    wanted = served.component(scene, name)
    command = list(wanted.command)
    command[command.index("--port") + 1] = str(port)
    return replace(wanted, name=f"cold-{name}", command=command, port=port)


def _first_calls(scene: Scene) -> dict[str, FirstCall]:
    """A quote for a member, a signed callback of a delivery that exists, a dispatch that finds nothing due."""
    made = audience.make(scene.sql, scene.owner_id, 10, plain=True)
    alert_id, _ = scene.send(made)
    delivery_id = f"{alert_id.replace('-', '')}-1"
    scene.sql.execute(
        "update public.deliveries set state = 'cancelled', claimable_at = null where alert_id = %s",
        (alert_id,),
    )
    scene.sql.execute("truncate private.queues")
    secret = f"Bearer {scene.settings.secrets.dispatch_secret}"
    document = {"Content-Type": "application/json"}

    def quote() -> tuple[bytes, str]:
        body = json.dumps({"organisation_id": str(made.organisation_id), **scene.alert(made)}).encode()
        return callbacks.request("/quote", body, document | scene.headers()), "200"

    def receipt() -> tuple[bytes, str]:
        return callbacks.one(scene, delivery_id, "SM" + "0" * 32, "sent"), "204"

    def dispatch() -> tuple[bytes, str]:
        return callbacks.request("/", b'{"hop":0}', document | {"Authorization": secret}), "200"

    def hello() -> tuple[bytes, str]:
        return callbacks.request("/", b"", {}), "200"

    return {
        HELLO: hello,
        "delivery-webhook": receipt,
        "send-alert": quote,
        "dispatch-deliveries-1": dispatch,
    }


def _start(scene: Scene, wanted: Component, first_call: FirstCall) -> tuple[float, float]:
    """Seconds from the spawn to the answer, and the processor seconds that it took."""
    request, status = first_call()
    begun = time.perf_counter()
    with served.running(scene, wanted, wait=False) as running:
        answer = _ask(wanted.port or 0, request, begun + GIVE_UP_SECONDS)
        seconds = time.perf_counter() - begun
        assert answer[9:12].decode() == status, f"{wanted.name} answered {answer[:400]!r}"
        return seconds, cpu_seconds(running.pid)


def _ask(port: int, request: bytes, give_up_at: float) -> bytes:
    """Knock until somebody opens, then wait for the head of the answer."""
    while time.perf_counter() < give_up_at:
        with (
            suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", port), timeout=30) as connection,
        ):
            connection.sendall(request)
            answer = b""
            while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
                answer += data
            if answer:
                return answer
        time.sleep(0.002)
    raise TimeoutError(f"nobody answered on port {port} within {GIVE_UP_SECONDS:.0f} s")


def _figure(name: str, found: dict[str, list[float]], cpu: dict[str, list[float]]) -> Figure:
    ratio = median([real / hello for real, hello in zip(found[name], found[HELLO], strict=True)])
    return Figure(
        f"cold_start_{name.removesuffix('-1')}", "s", median(found[name]), bare=median(found[HELLO]), ratio=ratio,
        judged=ratio, bound=BOUNDS[name], at_most=True,
        details={
            "seconds": found[name], "hello_seconds": found[HELLO],
            "cpu_ratio": median(cpu[name]) / (median(cpu[HELLO]) or 1),
        },
    )  # fmt: skip
