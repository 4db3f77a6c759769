"""The wire: keep-alive, pipelining, what is malformed, and the journal behind it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infra.local.carriers import testing
from infra.local.carriers.client import Carriers, CarriersError
from infra.local.carriers.exchange import parse_form
from infra.local.carriers.server import MAXIMUM_BODY_BYTES
from infra.local.carriers.settings import SettingsError, load

GOOD = {
    "TWILIO_ACCOUNT_SID": testing.ACCOUNT_SID, "TWILIO_AUTH_TOKEN": testing.AUTH_TOKEN,
    "RESEND_API_KEY": testing.RESEND_API_KEY,
}  # fmt: skip


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[testing.Running]:
    file = tmp_path_factory.mktemp("carriers") / "journal.jsonl"
    with testing.running(CARRIERS_JOURNAL_FILE=str(file), CARRIERS_JOURNAL_ROWS="500") as started:
        yield started


@pytest.fixture
def carriers(process: testing.Running) -> testing.Running:
    process.control.preset("none")
    process.control.reset()
    return process


def _connect(carriers: testing.Running) -> socket.socket:
    parts = urlsplit(carriers.url)
    return socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10)


def _hook(reference: str, path: str = "/sink/x", body: bytes = b"{}", more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: sink.test\r\nwebhook-id: {reference}\r\n{more}"
    return head.encode() + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


def _read_all(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_pipelined_requests_are_answered_in_order(carriers: testing.Running) -> None:
    carriers.control.knobs(webhook={"jitter_ms": 80})
    with _connect(carriers) as connection:
        paths = [f"/sink/answer-{400 + number}/x" for number in range(5)]
        hooks = [_hook(str(number), path) for number, path in enumerate(paths)]
        connection.sendall(b"".join(hooks) + _hook("last", more="Connection: close\r\n"))
        received = _read_all(connection)
    statuses = [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [400, 401, 402, 403, 404, 200]


def test_a_request_may_come_byte_by_byte(carriers: testing.Running) -> None:
    with _connect(carriers) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in _hook("slow", more="Connection: close\r\n"):
            connection.sendall(bytes([byte]))
        assert _read_all(connection).startswith(b"HTTP/1.1 200 OK")
    [row] = carriers.control.journal()
    assert (row.reference, row.destination) == ("slow", "http://sink.test/sink/x")
    assert 0 < row.time - row.begun_at < 5


def test_what_is_no_http_is_refused(carriers: testing.Running) -> None:
    with _connect(carriers) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert _read_all(connection).startswith(b"HTTP/1.1 400 ")


def test_a_body_that_is_too_large_is_refused(carriers: testing.Running) -> None:
    with _connect(carriers) as connection:
        head = _hook("big").replace(b"Content-Length: 2", b"Content-Length: %d" % (MAXIMUM_BODY_BYTES + 1))
        connection.sendall(head)
        try:
            for _ in range(MAXIMUM_BODY_BYTES // 65536 + 2):
                connection.sendall(b"x" * 65536)
        except ConnectionError:
            pass
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert carriers.control.counts()["webhook"]["accepted"] == 0


def test_a_client_that_leaves_has_not_heard(carriers: testing.Running) -> None:
    carriers.control.knobs(webhook={"latency_ms": 300})
    with _connect(carriers) as connection:
        connection.sendall(_hook("gone"))
        time.sleep(0.1)
    time.sleep(0.1)
    [row] = carriers.control.journal()
    assert row.answer_lost
    assert carriers.control.counts()["webhook"]["answers_lost"] == 1


def test_a_sink_can_answer_anything(carriers: testing.Running) -> None:
    with _connect(carriers) as connection:
        connection.sendall(_hook("1", "/sink/answer-410/org", more="Connection: close\r\n"))
        assert _read_all(connection).startswith(b"HTTP/1.1 410 Gone")
    assert carriers.control.counts()["webhook"]["refused"] == {"410": 1}


def test_the_journal_pages_filters_and_counts_duplicates(carriers: testing.Running) -> None:
    began = time.time()
    with _connect(carriers) as connection:
        hooks = [_hook(f"r-{number % 200}") for number in range(250)]
        connection.sendall(b"".join(hooks) + _hook("last", more="Connection: close\r\n"))
        _read_all(connection)
    rows = list(carriers.control.journal())
    assert [row.sequence for row in rows] == list(range(1, 252))
    assert [row.sequence for row in carriers.control.journal(after=249)] == [250, 251]
    assert list(carriers.control.journal("sms")) == []
    counts = carriers.control.counts()["webhook"]
    assert (counts["requests"], counts["accepted"], counts["references"]) == (251, 251, 201)
    assert counts["duplicates"] == 50
    assert began <= counts["first_begun_at"] <= counts["last_begun_at"] <= time.time()
    newest = carriers.control.requests(since=began, channel="webhook")
    assert (len(newest), newest[0]["references"]) == (251, ["last"])
    assert carriers.control.requests(since=time.time() + 1) == []


def test_a_full_journal_accepts_nothing_more(carriers: testing.Running) -> None:
    with _connect(carriers) as connection:
        connection.sendall(b"".join(_hook(str(number)) for number in range(500)))
        connection.sendall(_hook("last", more="Connection: close\r\n"))
        assert b"HTTP/1.1 507 " in _read_all(connection)
    assert carriers.control.counts()["webhook"]["accepted"] == 500


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/journal?limit=0", 400), ("GET", "/journal?after=x", 400), ("GET", "/journal?channel=fax", 400),
     ("GET", "/nowhere", 404), ("POST", "/journal", 404), ("GET", "/sink/x", 405),
     ("POST", "/simulate/inbound", 400)],
)  # fmt: skip
def test_control_doors_say_what_is_wrong(
    carriers: testing.Running, method: str, path: str, status: int
) -> None:
    with _connect(carriers) as connection:
        text = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(text.encode())
        head, _, body = _read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert json.loads(body)["status"] == status


def test_inbound_needs_somebody_to_tell(carriers: testing.Running) -> None:
    with pytest.raises(CarriersError) as refused:
        carriers.control.inbound("+33612345678", "+15005550006", "1")
    assert refused.value.status == 409


def test_the_journal_file_has_every_row(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with testing.running(CARRIERS_JOURNAL_FILE=str(file)) as started, _connect(started) as connection:
        connection.sendall(_hook("kept", more="Connection: close\r\n"))
        _read_all(connection)
    [line] = file.read_text().splitlines()
    assert json.loads(line)["reference"] == "kept"


@pytest.mark.parametrize(
    ("name", "value"),
    [("TWILIO_ACCOUNT_SID", "AC1"), ("TWILIO_AUTH_TOKEN", ""), ("RESEND_API_KEY", "short"),
     ("RESEND_WEBHOOK_SECRET", "whsec_eA=="), ("RESEND_WEBHOOK_SECRET", "no prefix"),
     ("RESEND_WEBHOOK_URL", "ftp://x"), ("CARRIERS_SEED", "-1"), ("CARRIERS_JOURNAL_ROWS", "0")],
)  # fmt: skip
def test_a_wrong_setting_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        load({**GOOD, name: value})
    assert not value or value not in str(refused.value).replace(name, "")


def test_ends_when_told_and_leaves_nothing() -> None:
    with testing.running() as started:
        url = started.url
    with pytest.raises(CarriersError) as gone:
        Carriers(url).counts()
    assert gone.value.status == 0


def test_parses_forms_leniently() -> None:
    assert parse_form("a=1&a=2&b=&c=%C3%A9+x&=5&d") == {"a": ["1", "2"], "b": [""], "c": ["é x"], "d": [""]}
