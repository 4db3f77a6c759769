"""Errors that people and retry loops act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.values import FailureClass


class AppError(Exception):
    """Something that the caller should be told: becomes a problem document (RFC 9457) in `web`.

    `code` is stable and snake_case; `detail` is a sentence that says what was wrong, where and what to do;
    `members` are extra JSON members. None of them may hold a secret or personal data.
    """

    status = 500

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.status = status if status is not None else self.status
        self.members = dict(members or {})
        self.headers = dict(headers or {})


class Refusal(AppError):
    """The caller asked for something that will not be done: 4xx, nothing was changed."""

    status = 400


class Unavailable(AppError):
    """A part behind us did not answer: 503, the caller may repeat the same request."""

    status = 503


class SettingsError(Exception):
    """A setting is missing, empty, short or unsafe: the process must not start. Never shows its value."""


class SendError(Exception):
    """A provider did not accept a message. `failure_class` is the only fact that a retry loop needs."""

    def __init__(
        self, failure_class: FailureClass, code: str, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(f"{failure_class.value}: {code}")
        self.failure_class = failure_class
        self.code = code
        self.retry_after_seconds = retry_after_seconds
