"""Who listens at an address, asked by Python's own TLS before gRPC dials: its id, fleet, validity, and its yes or no.

gRPC must know the name that it is going to see, and tells of every refused handshake alike. This probe sees the
peer's certificates whatever they are worth, has identity judge them, and then says the first words of HTTP/2 to learn
whether the peer takes ours. It decides nothing: what it learns is proved by the gRPC handshake that follows.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from cryptography import x509

from meshagent.errors import IdentityError
from meshagent.identity.credential import CertificateError, CertificateFault, Credential
from meshagent.transport.attempts import DialOutcome
from meshagent.transport.knock import OUTCOME_OF_ERRNO
from meshagent.transport.tls import Leaf, PeerVerifier

ALPN: Final = "h2"
_HELLO: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Connection preface and empty SETTINGS (RFC 9113 3.4): what every HTTP/2 server answers at once."""
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
_FLEET_URI: Final = re.compile(r"spiffe://([a-z2-7]{52})/device/[a-z0-9._-]{1,63}")
_DER: Final = 2
"""`_ssl.ENCODING_DER`, which 3.11 and 3.12 export nowhere public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerProbe:
    """What was learned at one address."""

    host: str
    port: int
    outcome: DialOutcome
    """LINKED here means: it would take us."""
    credential: Credential | None = None
    """Set where the certificates hold: who it is."""
    fleet: str | None = None
    """The fleet that its certificate names, proved only with `credential`."""
    fault: CertificateFault | None = None
    fault_text: str = ""
    detail: str = ""
    """Words of OpenSSL or the kernel, for logs."""


async def probe_identity(
    host: str,
    port: int,
    *,
    leaf: Leaf,
    verifier: PeerVerifier,
    wall_s: float,
    timeout_s: float,
) -> PeerProbe:
    """Ask the node at a literal address who it is and whether it takes us; never raises, takes `timeout_s` at most."""
    asked = _Asked(host, port)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=_context(leaf))
            judged = _judge(asked, _chain_of(writer), verifier, wall_s)
            if judged.credential is None:
                return judged
            return await _ask_for_yes(judged, reader, writer)
    except TimeoutError:
        return asked.says(DialOutcome.SILENT, f"no TLS answer within {timeout_s:g} s")
    except ssl.SSLError as error:
        return asked.says(DialOutcome.NOT_TLS, _words(error))
    except (ConnectionResetError, asyncio.IncompleteReadError) as error:
        return asked.says(DialOutcome.NOT_TLS, str(error))
    except OSError as error:
        return asked.says(OUTCOME_OF_ERRNO.get(error.errno or 0, DialOutcome.FAILED), str(error))
    finally:
        if writer is not None:
            writer.transport.abort()  # nothing was promised; a polite close could hang on a frozen peer


@dataclass(frozen=True, slots=True)
class _Asked:
    host: str
    port: int

    def says(self, outcome: DialOutcome, detail: str) -> PeerProbe:
        return PeerProbe(host=self.host, port=self.port, outcome=outcome, detail=detail[:300])


def _context(leaf: Leaf) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    # certificates are judged by identity after the handshake: OpenSSL would hide what it refuses
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    # the module takes keys from files only; this one never touches a disk
    memory = os.memfd_create("meshagent-leaf", os.MFD_CLOEXEC)
    try:
        os.write(memory, leaf.chain_pem + leaf.key_pem)
        context.load_cert_chain(f"/proc/self/fd/{memory}")
    finally:
        os.close(memory)
    return context


def _chain_of(writer: asyncio.StreamWriter) -> list[bytes]:
    """The certificates (DER) that the peer sent, leaf first, unverified."""
    tls = writer.get_extra_info("ssl_object")
    public = getattr(tls, "get_unverified_chain", None)
    if public is not None:  # Python 3.13
        return list(public())
    certificates = tls._sslobj.get_unverified_chain() or ()
    return [cast(bytes, certificate.public_bytes(_DER)) for certificate in certificates]


def _judge(asked: _Asked, chain: Sequence[bytes], verifier: PeerVerifier, wall_s: float) -> PeerProbe:
    if not chain or sum(map(len, chain)) > MAX_CERTIFICATE_BYTES:
        return asked.says(DialOutcome.THEIR_CREDENTIAL, "no certificate, or one too long to be ours")
    fleet = _fleet_named(chain)
    common: dict[str, Any] = {"host": asked.host, "port": asked.port, "fleet": fleet}
    try:
        credential = verifier.verify_peer(chain[0], chain, now_s=wall_s)
    except CertificateError as error:
        outcome = _OUTCOME_OF_FAULT.get(error.fault, DialOutcome.THEIR_CREDENTIAL)
        return PeerProbe(outcome=outcome, fault=error.fault, fault_text=str(error), **common)
    except IdentityError as error:
        return PeerProbe(outcome=DialOutcome.THEIR_CREDENTIAL, fault_text=str(error), **common)
    return PeerProbe(outcome=DialOutcome.LINKED, credential=credential, **common)


_OUTCOME_OF_FAULT: Final = {
    CertificateFault.OTHER_FLEET: DialOutcome.OTHER_FLEET,
    CertificateFault.REVOKED: DialOutcome.REVOKED,
}


def _fleet_named(chain: Sequence[bytes]) -> str | None:
    """The fleet in the URI of a device certificate; a claim, but in a spelling that is safe to print."""
    for data in chain[1:2]:
        try:
            certificate = x509.load_der_x509_certificate(data)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, x509.ExtensionNotFound):
            return None
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            if match := _FLEET_URI.fullmatch(uri):
                return match[1]
    return None


async def _ask_for_yes(judged: PeerProbe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> PeerProbe:
    """TLS 1.3 lets a client finish before the server has looked at its certificate; the answer comes after."""
    refused = PeerProbe(
        host=judged.host,
        port=judged.port,
        outcome=DialOutcome.REFUSED_US,
        credential=judged.credential,
        fleet=judged.fleet,
    )
    try:
        writer.write(_HELLO)
        answer = await reader.read(1)
    except (ssl.SSLError, ConnectionError):
        return refused
    return judged if answer else refused


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()
