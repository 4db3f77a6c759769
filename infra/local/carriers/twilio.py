"""What all of Twilio's resources have in common: credentials, error bodies, numbers, dates.

Sources: https://www.twilio.com/docs/usage/api, https://www.twilio.com/docs/api/errors and the OpenAPI
document `twilio_api_v2010.json`. Errors have Twilio's words; they name the number, as Twilio's do.
"""

from __future__ import annotations

import base64
import re
import secrets
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from infra.local.carriers.exchange import JSON_TYPE, Reply, Request, encode, retry_after
from infra.local.carriers.settings import Settings

VERSION = "2010-04-01"
PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &_+-]{1,11}")
SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_REFERENCE = re.compile(r"[?&]d=([^&#]*)")
_ATTEMPT = re.compile(r"[?&]a=([^&#]*)")


def error(code: int, message: str, status: int = 400, headers: bytes = b"") -> Reply:
    """An error as Twilio writes it."""
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    document = {"code": code, "message": message, "more_info": more_info, "status": status}
    return Reply(status, encode(document), JSON_TYPE + headers)


def not_found(path: str) -> Reply:
    """404 for a resource that is not there."""
    return error(20404, f"The requested resource {path} was not found", 404)


def wrong_method() -> Reply:
    """405 for a method that a resource does not have."""
    return error(20004, "Method not allowed", 405)


class Dialect:
    """How Twilio says that it will not or cannot. 429 is never processed; 5xx may have been."""

    def throttled(self, retry_after_seconds: float) -> Reply:
        """429, with Retry-After where there is a wait."""
        return error(20429, "Too Many Requests", 429, retry_after(retry_after_seconds))

    def broken(self, status: int) -> Reply:
        """500 or 503 (507: the journal is full)."""
        if status == 500:
            return error(20500, "An internal server error has occurred", 500)
        return error(20503, "Service is unavailable. Please try again", status)


class Credentials:
    """The one account's HTTP Basic credentials."""

    def __init__(self, settings: Settings) -> None:
        pair = f"{settings.account_sid}:{settings.auth_token}"
        self._expected = b"Basic " + base64.b64encode(pair.encode())

    def refuse(self, request: Request) -> Reply | None:
        """401 unless the request carries them."""
        if request.headers.get(b"authorization") == self._expected:
            return None
        return error(20003, "Authenticate", 401, b'WWW-Authenticate: Basic realm="Twilio API"\r\n')


@lru_cache(maxsize=4096)
def date(second: int) -> str:
    """A moment (epoch seconds) as Twilio writes it, in GMT: `Thu, 24 Aug 2023 05:01:45 +0000`."""
    return format_datetime(datetime.fromtimestamp(second, UTC))


def reference_of(callback: str | None) -> tuple[str | None, str | None]:
    """The `d` and `a` of a callback URL's query: whose message this is and which try."""
    if callback is None:
        return None, None
    reference, attempt = _REFERENCE.search(callback), _ATTEMPT.search(callback)
    return reference[1] if reference else None, attempt[1] if attempt else None


def sent(status: int, document: dict[str, object], rows: tuple[int, int] | None = None) -> Reply:
    """A resource, with Twilio's request id."""
    request_id = b"Twilio-Request-Id: RQ%s\r\n" % secrets.token_hex(16).encode()
    return Reply(status, encode(document), JSON_TYPE + request_id, rows)
