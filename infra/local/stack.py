"""The whole stack: start its processes in the right order, tell how they are, stop every one of them."""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from infra.local import compose, postgres, probe, process
from infra.local.compose import NEED_DATABASE, PARTS, part_of
from infra.local.interrupts import held_back
from infra.local.process import Component, Running
from infra.local.settings import (
    CHECKOUT,
    DEFAULT_PORT_BASE,
    PORT_SPAN,
    LocalStackError,
    Settings,
    load,
    write_private,
)

Report = Callable[[str, str], None]  # (component, what happens to it)


@dataclass(slots=True, frozen=True)
class Health:
    """One line of `credoalert status`."""

    name: str
    pid: int
    port: int | None
    seconds_up: float
    is_alive: bool
    is_healthy: bool


def silent(_component: str, _event: str) -> None:
    """A report that nobody reads."""


@dataclass(slots=True)
class Stack:
    """The stack of one home. Its state is the file stack.json, so that any process may ask for it or stop it."""

    settings: Settings
    checkout: Path = CHECKOUT
    running: dict[str, Running] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Path, port_base: int | None = None) -> Stack:
        """The stack in `home`, on the ports it had before or on `port_base`."""
        home = home.resolve()
        kept = _read_state(home)
        running = {each["name"]: Running(**each) for each in kept.get("running", [])}
        stack = cls(load(home, port_base or kept.get("port_base") or DEFAULT_PORT_BASE), running=running)
        if stack.is_up and port_base and kept["port_base"] != port_base:
            raise LocalStackError(
                f"the stack in {home} runs on port base {kept['port_base']}: stop it first (credoalert down)"
            )
        return stack

    @property
    def is_up(self) -> bool:
        """Whether any of its processes lives."""
        return any(each.is_alive for each in self.running.values())

    def up(self, parts: Sequence[str] = PARTS, report: Report = silent) -> None:
        """Start what does not run yet and return when all of it answers.

        On any error, Ctrl-C included, everything that this call started is stopped. Raises LocalStackError.
        """
        with self._locked():
            before = {name for name, each in self.running.items() if each.is_alive}
            try:
                self._start(parts, report)
            except BaseException:
                report("stack", "stopping what was started")
                with held_back():
                    self._stop([name for name in self.running if name not in before])
                raise

    def down(self) -> None:
        """Stop everything. Raises LocalStackError when a process can't be ended."""
        with self._locked():
            with held_back():
                self._stop(list(self.running))
                process.end(self._processes())
            if left := self._processes():
                raise LocalStackError(f"these processes are still there: {', '.join(map(str, left))}")
            if self.settings.sockets != self.settings.data:
                shutil.rmtree(self.settings.sockets, ignore_errors=True)

    def check(self) -> None:
        """Raises LocalStackError with the last words of the first process that has died."""
        for name, each in self.running.items():
            if not each.is_alive:
                raise LocalStackError(f"{name} has died. {process.last_words(self.log(name))}")

    def kill(self, name: str) -> None:
        """End one process at once, as a crash would (SIGKILL)."""
        process.kill(self.running[name])

    def stop(self, name: str) -> None:
        """Stop one process as `down` does."""
        with self._locked():
            self._stop([name])

    def restart(self, name: str, report: Report = silent) -> None:
        """Start one process again, after `kill` or instead of the one that runs."""
        with self._locked():
            self._stop([name])
            component = compose.components(self.settings)[name]
            self._launch([component], report)
            self._wait([component], report)

    def health(self) -> list[Health]:
        """How every process of the stack is, asked now."""
        components = compose.components(self.settings) if self.running else {}
        now = time.time()
        return [
            Health(
                name=name,
                pid=each.pid,
                port=each.port,
                seconds_up=now - each.started_at,
                is_alive=each.is_alive,
                is_healthy=each.is_alive and name in components and components[name].is_healthy(),
            )
            for name, each in self.running.items()
        ]

    def summary(self) -> dict[str, Any]:
        """What a program needs to use the stack; it holds secrets."""
        settings = self.settings
        return {
            "api_url": settings.api_url,
            "publishable_key": settings.secrets.publishable_key,
            "secret_key": settings.secrets.secret_key,
            "db_url": settings.db_url,
            "functions_url": settings.functions_url,
            "carriers_url": settings.carriers_url,
            "s3_url": settings.s3_url,
            "home": str(settings.home),
            "pids": {name: each.pid for name, each in self.running.items()},
        }

    def log(self, name: str) -> Path:
        return self.settings.logs / f"{name}.log"

    def _start(self, parts: Sequence[str], report: Report) -> None:
        """Slow starters first, then the database, what needs it, and the timer when everything answers."""
        wanted = {
            name: each for name, each in compose.components(self.settings).items() if part_of(name) in parts
        }
        missing = {name: each for name, each in wanted.items() if not self._lives(name)}
        self._stop([name for name in missing if name in self.running])  # the remains of what died
        self._refuse_taken_ports(missing.values())
        later = {name for name in missing if part_of(name) in NEED_DATABASE}
        first = [name for name in missing if name not in later and name not in {"postgres", "timer"}]
        self._launch([missing[name] for name in first], report)
        if "postgres" in wanted:
            self._start_database(wanted["postgres"], report)
        self._launch([missing[name] for name in later], report)
        self._wait([missing[name] for name in (*first, *later)], report)
        if "timer" in missing:
            self._launch([missing["timer"]], report)
            self._wait([missing["timer"]], report)

    def _start_database(self, component: Component, report: Report) -> None:
        if not self._lives("postgres"):
            self._launch([component], report)
            self._wait([component], report)
        report("migrations", "starting")
        postgres.set_up(self.settings)
        postgres.migrate(self.settings, self.checkout)
        report("migrations", "ready")

    def _lives(self, name: str) -> bool:
        return name in self.running and self.running[name].is_alive

    def _launch(self, components: Iterable[Component], report: Report) -> None:
        for component in components:
            report(component.name, "starting")
            component.prepare()
            with held_back():  # a process that nobody recorded could not be stopped
                self.running[component.name] = process.start(
                    component, self.log(component.name), str(self.settings.home)
                )
                self._save()

    def _wait(self, components: Sequence[Component], report: Report) -> None:
        def wait(component: Component) -> None:
            name = component.name
            process.wait_until_healthy(component, self.running[name], self.log(name))
            report(name, "ready")

        with ThreadPoolExecutor(len(components) or 1) as executor:
            list(executor.map(wait, components))

    def _stop(self, names: Sequence[str]) -> None:
        """All but Postgres at once: it goes last and without sessions. Needs nothing but the records."""
        known = [name for name in names if name in self.running]
        rest = [self.running[name] for name in known if name != "postgres"]
        with ThreadPoolExecutor(len(rest) or 1) as executor:
            list(executor.map(process.stop, rest))
        if "postgres" in known:
            process.stop(self.running["postgres"])
        for name in known:
            del self.running[name]
        self._save()

    def _refuse_taken_ports(self, components: Iterable[Component]) -> None:
        for component in components:
            if component.port and probe.is_taken(component.port):
                raise LocalStackError(
                    f"port {component.port} ({component.name}) is taken by another process: choose other ports, e.g. "
                    f"--port-base {self.settings.ports.base + PORT_SPAN} (or the setting CREDOALERT_PORT_BASE)"
                )

    def _processes(self) -> list[int]:
        """Every process of this home that lives, recorded or not (an `up` may have been killed)."""
        return process.marked(str(self.settings.home), self.settings.data)

    def _save(self) -> None:
        state = {
            "port_base": self.settings.ports.base,
            "summary": self.summary(),
            "running": [asdict(each) for each in self.running.values()],
        }
        write_private(self.settings.home / "stack.json", json.dumps(state, indent=1))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time for a home."""
        with (self.settings.home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise LocalStackError(
                    f"another command starts or stops the stack in {self.settings.home} now"
                ) from error
            yield


def _read_state(home: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((home / "stack.json").read_text())
    except FileNotFoundError:
        return {}
    return state
