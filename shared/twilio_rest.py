"""What texts and calls share at Twilio: credentials, form posts, the table of error codes, its lists.

Twilio has no idempotency key, so an outcome in doubt is `unknown` and the list is asked before anything is
sent again. Sources: https://www.twilio.com/docs/usage/requests-to-twilio,
https://www.twilio.com/docs/api/errors
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode

import orjson

from shared.errors import SendError
from shared.signatures import LinkSigner
from shared.values import FailureClass

if TYPE_CHECKING:
    from yarl import URL

    from shared.outbound import Answer, Outbound
    from shared.settings import ChannelSettings

PAGE_SIZE = 100
CLOCK_SLACK_SECONDS = 5  # Twilio dates whole seconds by its own clock
DAY_SECONDS = 86_400.0

_CLASSES: dict[FailureClass, frozenset[int]] = {
    FailureClass.THROTTLE: frozenset({
        10004,  # call concurrency limit
        14107,  # message rate limit
        20429,  # too many requests
        21611,  # the sender's queue is full
        22005,  # (?)
        30022,  # rate limit of the campaign (A2P 10DLC)
        30023,  # the campaign's cap for today
    }),
    FailureClass.TRANSIENT: frozenset({
        20500,  # internal error
        20503,  # unavailable
        30001,  # queue overflow
        30003,  # handset unreachable
        30008,  # unknown error at the carrier
        30017,  # carrier congested
        30410,  # carrier timed out
    }),
    FailureClass.PERMANENT: frozenset({
        21211,  # `To` is no valid number
        21214,  # `To` cannot be reached
        21217,  # number does not appear to be valid
        21612,  # no route from this sender to this number
        21614,  # not a mobile number
        21635,  # a landline
        30004,  # blocked by the recipient or the carrier
        30005,  # no such handset
        30006,  # landline or carrier out of reach
    }),
    FailureClass.OPTED_OUT: frozenset({
        21610,  # the recipient answered STOP
    }),
    FailureClass.CONTENT: frozenset({
        12100,  # TwiML that is not XML
        21602,  # no body
        21617,  # body over 1,600 characters
        30007,  # filtered by a carrier: never the same text again
        30019,  # larger than the carrier takes
        30450,  # refused for what it says
    }),
    FailureClass.CONFIGURATION: frozenset({
        10001,  # account not active
        20003,  # wrong credentials
        20404,  # no such account
        21205,  # callback URL of a call not valid
        21212,  # `From` is no valid number
        21219,  # trial account: number not verified (calls)
        21603,  # no sender
        21606,  # sender is not ours or cannot text
        21608,  # trial account: number not verified (texts)
        21609,  # callback URL of a text not valid
        21701,  # no such messaging service
        21703,  # the messaging service has no sender
        30002,  # account suspended
        30024,  # sender not provisioned for the carrier
        30032,  # toll-free number not verified
        30034,  # number not registered (A2P 10DLC)
        30035,  # the campaign's number is still being set up
    }),
    FailureClass.DESTINATION: frozenset({
        13227,  # no permission to call this country
        21215,  # no permission to call this number
        21216,  # number on Twilio's list of blocked calls
        21408,  # no permission to text this country
    }),
}  # fmt: skip
FAILURE_CLASSES: Mapping[int, FailureClass] = {
    code: failure_class for failure_class, codes in _CLASSES.items() for code in codes
}
_WAIT_SECONDS = {30023: DAY_SECONDS}


def failure_class(code: int, status: int = 400) -> FailureClass:
    """What an error means to a retry loop: the HTTP status where it decides, then the code, then permanent.

    Any 5xx is unknown, also with 20500 or 20503 in it: nothing says that the message was not taken before
    it failed. 429 is never processed. Unknown codes are permanent for the channel: the plan goes on with
    the next one.
    """
    if status == 429:
        return FailureClass.THROTTLE
    if status >= 500 or status == 408:
        return FailureClass.UNKNOWN
    if code in FAILURE_CLASSES:
        return FAILURE_CLASSES[code]
    wrong_door = status in (401, 403, 404, 405) or 300 <= status < 400
    return FailureClass.CONFIGURATION if wrong_door else FailureClass.PERMANENT


class TwilioRest:
    """The account's REST door: one resource list (`Messages` or `Calls`) of one account."""

    def __init__(self, outbound: Outbound, settings: ChannelSettings, resource: str, prefixes: str) -> None:
        """`resource`: "Messages" or "Calls"; `prefixes`: what its ids may begin with, e.g. "SM MM"."""
        account = settings.twilio_account_sid
        self._outbound = outbound
        self._list = f"{settings.twilio_base_url}/2010-04-01/Accounts/{account}/{resource}.json"
        self._url: URL = outbound.target(self._list)
        self._prefixes = tuple(prefixes.split())
        credentials = base64.b64encode(f"{account}:{settings.twilio_auth_token}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }

    async def create(self, form: bytes) -> str:
        """POST a form; the new resource's id. Raises SendError."""
        answer = await self._outbound.post(self._url, form, self._headers)
        document = _document(answer)
        if not 200 <= answer.status < 300:
            raise _refusal(answer, document)
        identifier = document.get("sid")
        if not isinstance(identifier, str) or len(identifier) != 34 or identifier[:2] not in self._prefixes:
            raise SendError(FailureClass.UNKNOWN, "answer_broken")
        return identifier

    async def newest(
        self, to: str, since: float, date_field: str, fits: Callable[[Mapping[str, Any]], bool]
    ) -> str | None:
        """The id of the newest resource to `to`, created at `since` or later, that fits; None: there is none.

        `date_field` ("DateSent" or "StartTime") is a day and is empty until the carrier has it, so the list
        is asked with it and without it before we say that there is none. Raises SendError when the list
        can't tell.
        """
        day = datetime.fromtimestamp(since - CLOCK_SLACK_SECONDS, UTC).strftime("%Y-%m-%dT00:00:00Z")
        query = {"To": to, "PageSize": str(PAGE_SIZE)}
        for narrowed in ({f"{date_field}>": day}, {}):
            rows = await self._rows({**query, **narrowed})
            recent = sorted(
                (row for row in rows if _created(row) >= since // 1 - CLOCK_SLACK_SECONDS),
                key=_created,
                reverse=True,
            )
            for row in recent:
                if fits(row) and isinstance(row.get("sid"), str):
                    return str(row["sid"])
            if len(recent) >= PAGE_SIZE:  # there may be more that we have not seen
                raise SendError(FailureClass.UNKNOWN, "list_too_long")
        return None

    async def _rows(self, query: Mapping[str, str]) -> list[Mapping[str, Any]]:
        url = self._outbound.target(f"{self._list}?{urlencode(query)}")
        answer = await self._outbound.get(url, self._headers)
        document = _document(answer)
        if answer.status != 200:
            raise _refusal(answer, document)
        for name in ("messages", "calls"):
            rows = document.get(name)
            if answer.complete and isinstance(rows, list):
                return [row for row in rows if isinstance(row, dict)]
        raise SendError(FailureClass.UNKNOWN, "answer_broken")


class Callbacks:
    """The URLs that Twilio calls back, signed so that a receipt names its delivery and attempt by itself.

    `kind` is message, call or gather.
    """

    def __init__(self, settings: ChannelSettings, kind: str) -> None:
        self._base = f"{settings.functions_url}/delivery-webhook/twilio/{kind}?d="
        self._encoded_base = quote_plus(self._base)
        self._signer = LinkSigner(settings.link_secret)

    def url(self, delivery_id: str, attempt: int, language: str = "") -> str:
        """The fragment asks for five retries and is not signed. `language`: in which to reply, e.g. "fr"."""
        mac = self._signer.sign_link("delivery", delivery_id, attempt)
        reply = f"&l={language}" if language else ""
        return f"{self._base}{delivery_id}&a={attempt}&m={mac}{reply}#rc=5&rp=all"

    def encoded(self, delivery_id: str, attempt: int) -> str:
        """That URL for a form, without a language; the ids and the signature hold nothing that needs encoding."""
        mac = self._signer.sign_link("delivery", delivery_id, attempt)
        return f"{self._encoded_base}{delivery_id}%26a%3D{attempt}%26m%3D{mac}%23rc%3D5%26rp%3Dall"


class _FormTable(dict[int, str]):
    """Form encoding by `str.translate`: each character is worked out once. Half the cost of `quote_plus`."""

    def __missing__(self, code: int) -> str:
        encoded = self[code] = quote_plus(chr(code), errors="replace")
        return encoded


FORM_TABLE: Mapping[int, str] = _FormTable()


def _document(answer: Answer) -> Mapping[str, Any]:
    try:
        document = orjson.loads(answer.body) if answer.complete else None
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {}


def _refusal(answer: Answer, document: Mapping[str, Any]) -> SendError:
    if not answer.complete and answer.status not in (401, 403, 429):  # the code that would tell is lost
        return SendError(FailureClass.UNKNOWN, "answer_broken")
    code = document.get("code")
    known = code if isinstance(code, int) else 0
    kind = failure_class(known, answer.status)
    wait_seconds = answer.retry_after_seconds()
    return SendError(
        kind,
        str(known) if known else f"http_{answer.status}",
        retry_after_seconds=_WAIT_SECONDS.get(known) if wait_seconds is None else wait_seconds,
    )


def _created(row: Mapping[str, Any]) -> float:
    try:
        return parsedate_to_datetime(str(row.get("date_created"))).timestamp()
    except (ValueError, TypeError):
        return 0.0
