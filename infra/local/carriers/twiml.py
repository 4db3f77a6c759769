"""TwiML, as far as a call needs it here: is it a document at all, and where does its first <Gather> lead."""

from __future__ import annotations

from dataclasses import dataclass
from xml.parsers import expat


class TwimlError(Exception):
    """The text is not XML, or not a <Response>."""


@dataclass(slots=True, frozen=True)
class Script:
    """The first <Gather>: its action URL (None: there is none) and whether silence is reported too."""

    action: str | None = None
    act_on_silence: bool = False


def read(text: str) -> Script:
    """Parse TwiML. Raises TwimlError. Entities are not expanded: a document type is refused."""
    parser = expat.ParserCreate()
    names: list[str] = []
    gathers: list[dict[str, str]] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        names.append(name)
        if name == "Gather":
            gathers.append(attributes)

    def doctype(*_: object) -> None:
        raise TwimlError("a document type is not allowed")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise TwimlError(str(error)) from error
    if names[0] != "Response":
        raise TwimlError("the root element must be Response")
    if not gathers or not gathers[0].get("action"):
        return Script()
    return Script(gathers[0]["action"], gathers[0].get("actionOnEmptyResult", "false") == "true")
