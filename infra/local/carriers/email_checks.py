"""What Resend refuses about one e-mail.

Sources: https://resend.com/docs/api-reference/errors and the OpenAPI document `resend.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MAXIMUM_RECIPIENTS = 50
_ADDRESS = r"[^\s@<>\",;]+@[^\s@<>\",;]+\.[^\s@<>\",;]+"
_FULL_ADDRESS = re.compile(rf"{_ADDRESS}|[^<>\r\n]*<{_ADDRESS}>")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_FORMAT = "The email address needs to follow the `email@example.com` or `Name <email@example.com>` format."

Complaint = tuple[str, str]  # error name, message


def addresses(value: object) -> tuple[str, ...] | None:
    """A field that may be one address or a list of them; None when it is neither."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


def complaint(email: object, *, batch: bool) -> Complaint | None:
    """The first thing wrong with an e-mail, or None. All of them are answered with 422."""
    if not isinstance(email, Mapping):
        return "validation_error", "Each email must be an object."
    if batch and email.get("attachments"):
        return "validation_error", "The `attachments` field is not supported in batch."
    return (
        _missing_complaint(email)
        or _address_complaint(email)
        or _subject_complaint(email["subject"])
        or _tag_complaint(email.get("tags"))
    )


def _missing_complaint(email: Mapping[str, object]) -> Complaint | None:
    for name in ("from", "to", "subject"):
        if email.get(name) in (None, "", []):
            return "missing_required_field", f"Missing `{name}` field."
    if not any(isinstance(email.get(name), str) for name in ("html", "text")) and not email.get("template"):
        return "missing_required_field", "Missing `html` or `text` field."
    return None


def _address_complaint(email: Mapping[str, object]) -> Complaint | None:
    for name in ("from", "to", "cc", "bcc", "reply_to"):
        if email.get(name) is None:
            continue
        found = addresses(email[name])
        if found is None or not all(_FULL_ADDRESS.fullmatch(each) for each in found):
            return "validation_error", f"Invalid `{name}` field. {_FORMAT}"
        if len(found) > MAXIMUM_RECIPIENTS or (name == "from" and not isinstance(email[name], str)):
            return "validation_error", f"The `{name}` field has too many addresses."
    return None


def _subject_complaint(subject: object) -> Complaint | None:
    if not isinstance(subject, str):
        return "validation_error", "The `subject` field must be a `string`."
    if "\n" in subject or "\r" in subject:
        return "validation_error", "The `\\n` is not allowed in the `subject` field."
    return None


def _tag_complaint(tags: object) -> Complaint | None:
    if tags is None:
        return None
    if not isinstance(tags, list) or not all(isinstance(tag, Mapping) for tag in tags):
        return "validation_error", "The `tags` field must be an `array` of objects."
    for tag in tags:
        for part in ("name", "value"):
            text = tag.get(part)
            if not isinstance(text, str) or not _TAG.fullmatch(text):
                return (
                    "validation_error",
                    "Tags should only contain ASCII letters, numbers, underscores, or dashes.",
                )
    return None
