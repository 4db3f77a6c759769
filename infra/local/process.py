"""One process of the stack: start it in its own session, know whether it still lives, stop it with all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.accounts import Account
from infra.local.settings import LocalStackError

MARK = "CREDOALERT_HOME_OF_PROCESS"
POLL_SECONDS = 0.05
KILL_GRACE_SECONDS = 5.0


@dataclass(slots=True, frozen=True)
class Component:
    """What has to be known to run one process and to see that it is well."""

    name: str
    command: Sequence[str]
    port: int | None
    is_healthy: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None  # another user to run as; None: this one
    directory: Path = Path("/")
    prepare: Callable[[], None] = lambda: None  # writes the files that the process reads; before every start
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0
    start_seconds: float = 60.0


@dataclass(slots=True, frozen=True)
class Running:
    """A process that was started: its id is also the id of its process group and session."""

    name: str
    pid: int
    born: str  # tells this process from a later one with the same id
    port: int | None
    started_at: float  # epoch seconds
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10.0

    @property
    def is_alive(self) -> bool:
        return is_alive(self.pid) and birth(self.pid) == self.born


def start(component: Component, log: Path, mark: str) -> Running:
    """Start a component detached from this terminal; its output goes to the end of `log`.

    `mark` goes into its environment, so that `marked` finds it even if nobody could note its id.

    Raises LocalStackError when its program can't be run.
    """
    account = component.account
    with log.open("ab") as output:
        try:
            child = subprocess.Popen(
                component.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=component.directory,
                env={**component.environment, MARK: mark},
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )
        except OSError as error:
            raise LocalStackError(f"{component.name} can't be started: {error}") from error
    child.returncode = 0  # it outlives this object on purpose: no ResourceWarning
    return Running(
        name=component.name,
        pid=child.pid,
        born=birth(child.pid),
        port=component.port,
        started_at=time.time(),
        stop_signal=component.stop_signal,
        stop_seconds=component.stop_seconds,
    )


def wait_until_healthy(component: Component, running: Running, log: Path) -> None:
    """Return when the component answers. Raises LocalStackError with its last words when it died or was too slow."""
    deadline = time.monotonic() + component.start_seconds
    while not component.is_healthy():
        if not running.is_alive:
            raise LocalStackError(f"{component.name} died while it started. {last_words(log)}")
        if time.monotonic() > deadline:
            raise LocalStackError(
                f"{component.name} did not answer within {component.start_seconds:.0f} s. {last_words(log)}"
            )
        time.sleep(POLL_SECONDS)


def stop(running: Running) -> None:
    """Ask the process to end, then kill what is left of its group."""
    if running.is_alive:
        _signal(running.pid, running.stop_signal)
        _wait(lambda: not running.is_alive, running.stop_seconds)
    elif is_alive(running.pid):
        return  # the id belongs to a stranger by now, and so may the group
    _signal_group(running.pid, signal.SIGKILL)
    _wait(lambda: not _group_exists(running.pid), KILL_GRACE_SECONDS)


def kill(running: Running) -> None:
    """End the process and its children at once (SIGKILL), as a crash would."""
    if running.is_alive:
        _signal_group(running.pid, signal.SIGKILL)
        _wait(lambda: not running.is_alive, KILL_GRACE_SECONDS)


def marked(mark: str, directory: Path) -> list[int]:
    """Living processes that carry the mark or work in `directory`, as Postgres' children do, which overwrite theirs."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for pid in _all_processes():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if (wanted in environment or _works_in(pid, directory)) and is_alive(pid):
                found.append(pid)
    return found


def end(pids: Sequence[int]) -> None:
    """Kill processes (SIGKILL) and wait until they are gone."""
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    _wait(lambda: not any(is_alive(pid) for pid in pids), KILL_GRACE_SECONDS)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def birth(pid: int) -> str:
    """When the process was born, in the system's own words; empty when it is gone."""
    try:
        return _stat(pid)[19]
    except (OSError, IndexError):
        return _ask_ps(pid, "lstart") if not Path("/proc/self/stat").exists() else ""


def last_words(log: Path, lines: int = 15) -> str:
    """The end of a log, to be shown with an error."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace").rstrip()
    except OSError:
        return f"It left no log ({log})."
    tail = "\n".join(f"  | {line}" for line in text.splitlines()[-lines:]) or "  | (nothing)"
    return f"The end of {log}:\n{tail}"


def _stat(pid: int) -> list[str]:
    # the second field is the program's name in brackets and may hold spaces
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except (OSError, IndexError):
        return _ask_ps(pid, "state")[:1] if not Path("/proc/self/stat").exists() else "Z"


def _ask_ps(pid: int, column: str) -> str:
    answer = subprocess.run(
        ["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _all_processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                yield int(entry.name)


def _works_in(pid: int, directory: Path) -> bool:
    return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(directory)


def _group_exists(group_id: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-group_id, os.WNOHANG)
    try:
        os.killpg(group_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_state(pid) != "Z" for pid in _group_members(group_id))


def _group_members(group_id: int) -> Iterator[int]:
    for pid in _all_processes():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) == group_id:
                yield pid


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _signal_group(group_id: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group_id, number)


def _wait(is_done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_done() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS / 5)
