"""Tells dispatch-deliveries that there is work, without making the caller wait for it.

Fire and forget: a thread writes the request and holds the connection until the dispatcher answers, so that a
platform that stops what nobody waits for lets it work. A kick that fails is only logged: the dispatcher's
timer is the safety net. Few are held at once; one asked for meanwhile is sent as soon as one of them ends.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from shared import log
from shared.settings import DispatchSettings

MOST_HELD = 4
CONNECT_TIMEOUT_SECONDS = 3
GRACE_SECONDS = 10  # over the dispatcher's own budget
PAUSES_SECONDS = (1.5, 5.0)
_NOBODY_THERE = frozenset({502, 503, 504})


class Kicker:
    """Starts dispatchers. One for a function, shared by its threads."""

    def __init__(
        self,
        settings: DispatchSettings,
        *,
        most_held: int = MOST_HELD,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self._settings = settings
        self._pauses_seconds = tuple(pauses_seconds)
        self._most_held = most_held
        self._lock = threading.Lock()
        self._held = 0
        self._wanted = False

    def kick(self, hop: int = 0) -> None:
        """Returns at once. `hop` counts the dispatchers that started one another."""
        with self._lock:
            if self._held >= self._most_held:
                self._wanted = True
                return
            self._held += 1
        threading.Thread(target=self._run, args=(log.request_id.get(), hop), daemon=True).start()

    def _run(self, request_id: str, hop: int) -> None:
        with log.bound_request_id(request_id):
            while True:
                self._try(request_id, hop)
                with self._lock:
                    if not self._wanted:
                        self._held -= 1
                        return
                    self._wanted = False

    def _try(self, request_id: str, hop: int) -> None:
        """Again after a pause where nobody could take it: a dispatcher that starts is away for a second."""
        for pause_seconds in (*self._pauses_seconds, None):
            try:
                status = self._post(request_id, hop)
            except (OSError, http.client.HTTPException) as error:
                log.log.warning("kick_failed", error)
            else:
                if status < 300:
                    return
                log.log.warning("kick_refused", status=status)
                if status not in _NOBODY_THERE:
                    return
            if pause_seconds is not None:
                threading.Event().wait(pause_seconds)

    def _post(self, request_id: str, hop: int) -> int:
        url = urlsplit(self._settings.dispatch_url)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        connection = kind(url.hostname or "", url.port, timeout=CONNECT_TIMEOUT_SECONDS)
        headers = {"Authorization": f"Bearer {self._settings.secret}", "Content-Type": "application/json"}
        if request_id:
            headers["X-Request-Id"] = request_id
        try:
            connection.request("POST", url.path, b'{"hop":%d}' % hop, headers)
            connection.sock.settimeout(self._settings.budget_seconds + GRACE_SECONDS)
            return connection.getresponse().status
        finally:
            connection.close()
