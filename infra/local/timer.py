"""The timers of a deployment: sweep often, and start a dispatcher whenever a delivery waits. Every error is survived.

Run as `python -m infra.local.timer` with SUPABASE_URL, SUPABASE_SECRET_KEY, FUNCTIONS_URL and DISPATCH_SECRET.
"""

from __future__ import annotations

import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import urllib3

TICK_SECONDS = 1.0
SWEEP_SECONDS = 5.0
DISPATCH_TIMEOUT_SECONDS = 180.0  # a dispatcher answers when its budget is spent
MAXIMUM_KICKS = 2  # dispatchers that the timer waits for at once; they kick further ones themselves

log = logging.getLogger("timer")


class CallFailed(Exception):
    """A call was not answered with success; the message says which and how, without what it carried."""


@dataclass(slots=True)
class Timer:
    """What the timer calls, and the errors it has already told (each is logged once until it changes)."""

    supabase_url: str
    secret_key: str
    functions_url: str
    dispatch_secret: str
    pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=4, retries=False))
    kicks: list[Future[None]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        """Tick until the process is told to end."""
        with ThreadPoolExecutor(MAXIMUM_KICKS, thread_name_prefix="kick") as executor:
            swept_at = 0.0
            while True:
                if time.monotonic() - swept_at >= SWEEP_SECONDS:
                    swept_at = time.monotonic()
                    self.attempt("sweep", self.sweep)
                self.attempt("dispatch", lambda: self.dispatch(executor))
                time.sleep(TICK_SECONDS)

    def sweep(self) -> None:
        """Put back what lost its lease, expire what is too late, ask for what is unknown."""
        self._rpc("sweep_deliveries")

    def dispatch(self, executor: ThreadPoolExecutor) -> None:
        """Start one more dispatcher when there is work and not enough of them run already."""
        self.kicks = [kick for kick in self.kicks if not kick.done()]
        if len(self.kicks) < MAXIMUM_KICKS and has_work(self._rpc("dispatch_backlog")):
            self.kicks.append(executor.submit(self.attempt, "kick", self.kick))

    def kick(self) -> None:
        self._post(
            f"{self.functions_url}/dispatch-deliveries",
            {"Authorization": f"Bearer {self.dispatch_secret}"},
            {"hop": 0},
            DISPATCH_TIMEOUT_SECONDS,
        )

    def attempt(self, name: str, work: Any) -> None:
        """Do it; an error is logged and forgotten, so that the next tick comes in any case."""
        try:
            work()
        except (CallFailed, urllib3.exceptions.HTTPError, ValueError) as error:
            if self.told.get(name) != str(error):
                log.error("%s failed: %s", name, error)
            self.told[name] = str(error)
        else:
            if self.told.pop(name, None) is not None:
                log.info("%s works again", name)

    def _rpc(self, name: str) -> Any:
        return self._post(f"{self.supabase_url}/rest/v1/rpc/{name}", {"apikey": self.secret_key}, {}, 15.0)

    def _post(
        self, url: str, headers: dict[str, str], body: dict[str, object], timeout_seconds: float
    ) -> Any:
        answer = self.pool.request("POST", url, json=body, headers=headers, timeout=timeout_seconds)
        if not 200 <= answer.status < 300:
            raise CallFailed(f"{url.rpartition('/')[2]} answered {answer.status} {answer.data[:300]!r}")
        return answer.json() if answer.data else None


def has_work(backlog: object) -> bool:
    """Whether `dispatch_backlog()` names channels that have something to do now and too few dispatchers run."""
    if not isinstance(backlog, dict):
        return False
    return bool(backlog.get("due")) and int(backlog.get("dispatchers", 0)) < MAXIMUM_KICKS


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    Timer(
        supabase_url=os.environ["SUPABASE_URL"],
        secret_key=os.environ["SUPABASE_SECRET_KEY"],
        functions_url=os.environ["FUNCTIONS_URL"],
        dispatch_secret=os.environ["DISPATCH_SECRET"],
    ).run()


if __name__ == "__main__":
    main()
