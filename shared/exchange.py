"""A request and a response, free of any framework: what a handler gets and what it gives back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from shared import problems
from shared.errors import Refusal

if TYPE_CHECKING:
    from pydantic import BaseModel

LARGEST_BODY = 1024 * 1024
MOST_FORM_FIELDS = 200

Model = TypeVar("Model", bound="BaseModel")


class Headers(Protocol):
    """Header fields by name, in any case."""

    def get(self, name: str, default: str, /) -> str:
        """The field's value, or the default."""


@dataclass(slots=True)
class Request:
    """One request, free of any framework. `query` is the raw query string."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes = b""
    oversized: bool = False  # the body is larger than LARGEST_BODY and was not kept

    def parse(self, model: type[Model]) -> Model:
        """The JSON body as a strict model. Raises Refusal 415, 400 (malformed) or 422 (with `errors`)."""
        from pydantic import ValidationError

        self._require("application/json")
        try:
            return model.model_validate_json(self.body, strict=True)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            raise problems.from_validation([dict(e) for e in found]) from None

    def form(self) -> list[tuple[str, str]]:
        """The pairs of a form body, repeated and empty ones too. Raises Refusal 415 or 400."""
        self._require("application/x-www-form-urlencoded")
        try:
            text = self.body.decode("ascii")
            return parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FORM_FIELDS, errors="strict")
        except ValueError:
            raise Refusal("form_malformed", "The body is not a form that can be read.", status=400) from None

    def _require(self, media_type: str) -> None:
        given = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != media_type:
            raise Refusal("media_type_unsupported", f"Send the body as {media_type}.", status=415)


@dataclass(slots=True)
class Response:
    """What goes back. `close` ends the connection: the rest of a body that was refused is not read."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False


def ok(value: Any, status: int = 200) -> Response:
    return Response(status, json.dumps(value, separators=(",", ":")).encode())


def accepted(value: Any) -> Response:
    return ok(value, 202)


def no_content() -> Response:
    return Response(204, content_type="")
