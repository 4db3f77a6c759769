"""Problem documents (RFC 9457): how every refusal and failure is told to a caller."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any

from shared import log
from shared.errors import AppError, Refusal

CONTENT_TYPE = "application/problem+json"
TYPE_BASE = "https://credoalert.com/problems/"
MOST_ERRORS = 50
LONGEST_NAME = 64


def document(error: AppError) -> bytes:
    """{type, title, status, detail, code, request_id, ...members}."""
    known: dict[str, Any] = {
        "type": TYPE_BASE + error.code.replace("_", "-"),
        "title": _title(error.status),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": log.request_id.get(),
    }
    return json.dumps({**error.members, **known}, separators=(",", ":")).encode()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def from_validation(errors: list[dict[str, Any]]) -> Refusal:
    """The 400 or 422 for pydantic's errors: a pointer (RFC 6901) and a reason each, never what was sent."""
    if errors and errors[0]["type"] == "json_invalid":
        where = re.search(r"line (\d+) column (\d+)", errors[0]["msg"])
        place = f" at line {where[1]}, column {where[2]}" if where else ""
        return Refusal("json_malformed", f"The body is not JSON{place}.", status=400)
    listed = [{"pointer": _pointer(e["loc"]), "reason": _reason(e)} for e in errors[:MOST_ERRORS]]
    detail = f"{len(errors)} of the body's values can't be accepted: see `errors`."
    if len(errors) == 1:
        detail = f"{listed[0]['pointer'] or 'The body'} {listed[0]['reason']}."
    return Refusal("body_invalid", detail, status=422, members={"errors": listed})


def _pointer(location: tuple[int | str, ...]) -> str:
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in location]
    return "".join(
        "/" + re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?", part)[:LONGEST_NAME] for part in parts
    )


# pydantic's own messages may quote the input, so each type has words of ours; {} are limits of the model
_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known name",
    "string_type": "must be a text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "does not have the form that is asked for",
    "enum": "must be one of {expected}",
    "literal_error": "must be one of {expected}",
    "list_type": "must be an array",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entries",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "uuid_version": "must be a UUID of version {expected_version}",
    "datetime_type": "must be an instant in RFC 3339 form, such as 2027-01-31T08:00:00Z",
    "datetime_parsing": "must be an instant in RFC 3339 form, such as 2027-01-31T08:00:00Z",
    "datetime_from_date_parsing": "must be an instant in RFC 3339 form, such as 2027-01-31T08:00:00Z",
    "timezone_aware": "must name its offset from UTC, such as Z or +01:00",
}


def _reason(error: dict[str, Any]) -> str:
    context = error.get("ctx", {})
    if error["type"] == "value_error":
        return str(
            context.get("error", "is not acceptable")
        )  # raised by our own validators, which never quote
    template = _REASONS.get(error["type"], "is not acceptable")
    return template.format_map({key: str(value) for key, value in context.items()} | {"error": ""})
