"""Small questions to the loopback interface: does a server answer, is a port taken."""

from __future__ import annotations

import http.client
import socket


def answers(port: int, path: str, *, at_most_status: int = 499) -> bool:
    """Whether an HTTP server answers a GET on this path with a status up to `at_most_status`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status <= at_most_status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def is_taken(port: int) -> bool:
    """Whether some process listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
