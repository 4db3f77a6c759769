"""Start the stand-in carriers: `python -m infra.local.carriers --port N`, settings from the environment."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path

from infra.local.carriers.callbacks import Callbacks
from infra.local.carriers.knobs import KnobError
from infra.local.carriers.routes import Routes
from infra.local.carriers.server import Server
from infra.local.carriers.settings import Settings, SettingsError, load
from infra.local.carriers.world import World

FLUSH_SECONDS = 0.5


async def serve(settings: Settings, port: int) -> None:
    """Serve until SIGTERM or SIGINT. Prints one line with the address when it is ready."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_append(settings.journal_file)) if settings.journal_file else None
        callbacks = Callbacks(settings.callbacks_in_flight)
        world = World(settings, time.time, callbacks, file)
        server = Server(Routes(world), world.journal.mark_unheard)
        await callbacks.start()
        bound = await server.start(port)
        print(f"carriers listen on http://127.0.0.1:{bound}", flush=True)
        flusher = asyncio.create_task(_flush(world))
        await stopped.wait()
        flusher.cancel()
        await server.stop()
        await callbacks.stop()
        world.journal.flush()


def _append(path: str) -> TextIOWrapper:
    return Path(path).open("a", encoding="utf-8")


async def _flush(world: World) -> None:
    while True:
        await asyncio.sleep(FLUSH_SECONDS)
        world.journal.flush()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> int:
    """Parse the arguments and serve; 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.carriers", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="0: a free one, which the first line names")
    arguments = parser.parse_args()
    try:
        settings = load(os.environ)
        # Rows live long and are never cyclic: look for garbage less often.
        gc.set_threshold(50_000, 50, 100)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(serve(settings, arguments.port))
    except (SettingsError, KnobError) as error:
        print(f"carriers: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
