"""Function processes of the bench's own, with the settings that the stack gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from infra.bench.scene import Scene
from infra.local import functions, probe, process
from infra.local.process import Component, Running

BARE = Path(__file__).with_name("bare_functions.py")


def component(scene: Scene, name: str) -> Component:
    """A deployed function as the stack starts it, e.g. `delivery-webhook`."""
    return next(each for each in functions.components(scene.settings) if each.name == name)


def bare(scene: Scene, target: str, port: int) -> Component:
    """A function of bare_functions in place of delivery-webhook: same server, workers and threads."""
    like = component(scene, "delivery-webhook")
    command = list(like.command)
    for option, value in (("--port", str(port)), ("--target", target), ("--source", str(BARE))):
        command[command.index(option) + 1] = value
    return replace(
        like,
        name=f"bare-{target}",
        command=command,
        port=port,
        is_healthy=lambda: probe.answers(port, "/", at_most_status=204),
    )


@contextmanager
def running(scene: Scene, wanted: Component, *, wait: bool = True) -> Iterator[Running]:
    """The process, while the block lasts; `wait` until it answers."""
    log = scene.settings.logs / f"bench-{wanted.name}.log"
    wanted.prepare()
    started = process.start(wanted, log, str(scene.settings.home))
    try:
        if wait:
            process.wait_until_healthy(wanted, started, log)
        yield started
    finally:
        process.stop(started)
