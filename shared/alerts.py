"""Alerts: quote, send, report. The decisions are those of the SQL functions of the same names."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import UUID7, AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.database import Database
from shared.values import Channel, Severity, clean_text

MOST_GROUPS = 100
MOST_CONTACTS = 1000
MOST_VARIABLES = 100


def _title(text: str) -> str:
    return clean_text(text, longest=200)


def _value(text: str) -> str:
    return clean_text(text, longest=1000, lines=True) if text else text


def _distinct(items: list[Any]) -> list[Any]:
    if len(set(items)) < len(items):
        raise ValueError("must name each only once")
    return items


Title = Annotated[str, Field(max_length=2000), AfterValidator(_title)]
VariableName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
VariableValue = Annotated[str, Field(max_length=2000), AfterValidator(_value)]


class SendAlert(BaseModel):
    """What a member asks to send or to quote. The same `alert_id` again gives the first answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    organisation_id: UUID
    alert_id: UUID7  # chosen by the caller: a repeat after a lost answer must not send twice
    title: Title
    severity: Severity
    channels: Annotated[
        list[Channel], Field(min_length=1, max_length=len(Channel)), AfterValidator(_distinct)
    ]
    template_id: UUID
    group_ids: Annotated[list[UUID], Field(max_length=MOST_GROUPS), AfterValidator(_distinct)] = []
    contact_ids: Annotated[list[UUID], Field(max_length=MOST_CONTACTS), AfterValidator(_distinct)] = []
    variables: Annotated[dict[VariableName, VariableValue], Field(max_length=MOST_VARIABLES)] = {}
    expires_at: AwareDatetime | None = None  # whether it is in the future is for the database's clock

    @model_validator(mode="after")
    def _has_an_audience(self) -> SendAlert:
        if not self.group_ids and not self.contact_ids:
            raise ValueError("must name someone in group_ids or contact_ids")
        return self

    def argument(self) -> dict[str, Any]:
        """The alert as the SQL functions take it."""
        return self.model_dump(mode="json", exclude={"organisation_id"}, exclude_none=True)


class Endpoint(BaseModel):
    """An endpoint address whose signing secret is asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    organisation_id: UUID
    address_id: UUID


def send(db: Database, alert: SendAlert) -> Any:
    """Freezes the audience, reserves the credits and queues the deliveries, all or nothing."""
    return db.rpc("send_alert", p_organisation_id=str(alert.organisation_id), p_alert=alert.argument())


def quote(db: Database, alert: SendAlert) -> Any:
    """What a send would do and cost, by channel, country and reason; nothing is kept."""
    return db.rpc("quote_alert", p_organisation_id=str(alert.organisation_id), p_alert=alert.argument())


def report(db: Database, organisation_id: UUID, alert_id: UUID) -> Any:
    """What became of an alert, by state, reason, channel and country, with its credits."""
    return db.rpc("alert_report", p_organisation_id=str(organisation_id), p_alert_id=str(alert_id))
