"""TLS before a plain server, with a handshake that takes long, as over a slow network."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class SlowTls:
    """`handshakes`: connections that were opened. `authority`: what SSL_CERT_FILE has to name."""

    url: str
    authority: Path
    handshakes: int = 0


@asynccontextmanager
async def slow_tls(plain_url: str, directory: Path, *, handshake_seconds: float) -> AsyncIterator[SlowTls]:
    """Serves what is at `plain_url`; it passes a connection's first bytes on after `handshake_seconds`."""
    target = urlsplit(plain_url)
    authority, context = _certificate(directory)
    inner = await asyncio.start_server(_pass_to(target.hostname, target.port), "127.0.0.1", 0, ssl=context)
    to_inner = _pass_to(*inner.sockets[0].getsockname()[:2])
    served = SlowTls("", authority)

    async def delayed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.handshakes += 1
        await asyncio.sleep(handshake_seconds)
        await to_inner(reader, writer)

    outer = await asyncio.start_server(delayed, "127.0.0.1", 0)
    served.url = f"https://127.0.0.1:{outer.sockets[0].getsockname()[1]}{target.path}"
    try:
        yield served
    finally:
        outer.close()
        inner.close()


def _pass_to(host: str | None, port: int | None) -> _Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(_pass(reader, other_writer), _pass(other_reader, writer))

    return handle


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the other side went away
    finally:
        writer.close()


def _certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that is its own authority, and the context of a server that shows it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a slow provider")])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority, private = directory / "authority.pem", directory / "key.pem"
    authority.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, private)
    return authority, context
