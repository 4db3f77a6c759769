"""Twilio's lists: filters by number and date, pages with their links."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from infra.local.carriers.exchange import Reply, Request, reply_json
from infra.local.carriers.twilio import error

DEFAULT_PAGE_SIZE = 50
MAXIMUM_PAGE_SIZE = 1000

Span = tuple[float, float]  # epoch seconds: from, up to (exclusive)
Query = dict[str, list[str]]


def span_of(query: Query, name: str) -> Span:
    """The time that `Name`, `Name>` (in a URL: `Name>=...`) and `Name<` leave. Raises ValueError for no date.

    A date means its whole day (GMT), a date-time its second; both ends are included, as Twilio has it.
    """
    low, high = 0.0, float("inf")
    for suffix in ("", ">", "<"):
        for text in query.get(name + suffix, []):
            begin, end = _moment(text)
            low = low if suffix == "<" else max(low, begin)
            high = high if suffix == ">" else min(high, end)
    return low, high


def _moment(text: str) -> Span:
    if len(text) == 10:
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    moment = datetime.fromisoformat(text)
    begin = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return begin.timestamp() // 1, begin.timestamp() // 1 + 1


def page(
    request: Request,
    query: Query,
    name: str,
    found: Iterable[object],
    show: Callable[..., dict[str, object]],
) -> Reply:
    """One page of what was found, newest first, with the links to its neighbours."""
    try:
        size = min(max(int(query.get("PageSize", [str(DEFAULT_PAGE_SIZE)])[0]), 1), MAXIMUM_PAGE_SIZE)
        number = max(int(query.get("Page", ["0"])[0]), 0)
    except ValueError:
        return error(20001, "Page and PageSize must be whole numbers")
    start = number * size
    shown, more = _slice(iter(found), start, size)
    link = _linker(request.path, query, size)
    return reply_json(200, {
        "first_page_uri": link(0), "end": start + max(len(shown) - 1, 0), "start": start,
        "next_page_uri": link(number + 1) if more else None,
        "previous_page_uri": link(number - 1) if number else None,
        "page": number, "page_size": size, "uri": link(number),
        name: [show(record) for record in shown],
    })  # fmt: skip


def _slice(found: Iterator[object], start: int, size: int) -> tuple[list[object], bool]:
    shown: list[object] = []
    for index, record in enumerate(found):
        if index < start:
            continue
        if len(shown) == size:
            return shown, True
        shown.append(record)
    return shown, False


def _linker(path: str, query: Query, size: int) -> Callable[[int], str]:
    kept = [
        (name, value)
        for name, values in query.items()
        if name not in ("Page", "PageSize", "PageToken")
        for value in values
    ]
    return lambda number: f"{path}?{urlencode([*kept, ('PageSize', size), ('Page', number)])}"
