"""TLS that does not come about: nothing was written, so the message was surely not sent."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shared.errors import SendError
from shared.values import FailureClass
from tests.shared import raw_server
from tests.shared.raw_server import Behaviour, serve
from tests.shared.test_outbound import call

TRANSIENT = FailureClass.TRANSIENT


@pytest.mark.parametrize("behaviour", [raw_server.garbage, raw_server.close_unread, raw_server.hang])
def test_a_failed_tls_handshake_is_transient(behaviour: Behaviour) -> None:
    async def run() -> None:
        async with serve(behaviour) as server:
            with pytest.raises(SendError) as raised:
                await call(server.url.replace("http:", "https:"), timeout_seconds=0.6)
            assert raised.value.failure_class is TRANSIENT
            assert server.requests == []

    asyncio.run(run())


def test_a_certificate_that_is_not_trusted_is_transient_and_nothing_is_written(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(str(folder)))
    seen: list[bytes] = []

    async def run() -> None:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.read(1))

        server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(SendError) as raised:
            await call(f"https://127.0.0.1:{port}")
        server.close()
        assert (raised.value.failure_class, raised.value.code) == (TRANSIENT, "tls_failed")

    asyncio.run(run())
    assert seen in ([], [b""])


def self_signed(folder: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = Path(folder, "certificate.pem"), Path(folder, "key.pem")
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(certificate_file), str(key_file)
