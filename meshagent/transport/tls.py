"""Mutual TLS between nodes: gRPC credentials from the device's leaf, and who is at the other end of a server's stream.

The client's side needs no check of its own: it dials with `grpc.ssl_target_name_override=<id>.mesh`, and the critical
name constraints of every device certificate leave that name to one device. On the server `PeerIdentifier` takes the
certificates that TLS saw and hands them to identity's `verify_peer`, which trusts nothing that the peer could order
or add.

Leaves rotate while the server runs; their keys exist in memory only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import grpc

from meshagent.errors import IdentityError
from meshagent.identity.credential import Credential
from meshagent.identity.trust import Trust
from meshagent.transport.config import MAX_FRAME_BYTES, MAX_STREAMS_PER_CONNECTION, TransportConfig
from meshagent.types import NodeId

RENEW_AT: Final = 0.6
"""A leaf is replaced after this share of its life; what is left is for links made just before, and for peers whose
clock is ahead."""
AGE_BACKSTOP: Final = 1.25
"""gRPC itself ends a connection at this multiple of the link age, for peers that ignore ours."""
AGE_GRACE_S: Final = 5.0
CLOCK_STEP_S: Final = 60.0
"""A wall clock that falls back further than this makes the present leaf suspect, and another is issued."""

ChannelOptions = list[tuple[str, int | str]]


class LeafIssuer(Protocol):
    """What is needed of `identity.DeviceIdentity`."""

    @property
    def node_id(self) -> NodeId: ...

    @property
    def trust(self) -> Trust: ...

    @property
    def credential(self) -> Credential: ...

    def issue_leaf(self, now_s: float) -> LeafMaterial: ...


class LeafMaterial(Protocol):
    """A TLS certificate and its key, as identity issues them."""

    @property
    def chain_pem(self) -> bytes: ...

    @property
    def key_pem(self) -> bytes: ...

    @property
    def not_after_s(self) -> float: ...


class PeerVerifier(Protocol):
    """What is needed of `identity.CredentialBook`."""

    def verify_peer(self, leaf: bytes, chain: bytes | Sequence[bytes], *, now_s: float) -> Credential:
        """The credential behind a chain (PEM, or DERs), cached by fingerprint; IdentityError where it does not hold."""

    def time_s(self, now_s: float) -> float:
        """`now_s`, or the newest time that a root signed where this device's clock lags behind it."""

    def revoked(self, peer: NodeId) -> object | None:
        """Not None where the device is out."""

    def find(self, peer: NodeId) -> Credential | None:
        """The newest credential seen of a device."""


def name_in_certificates(node_id: str) -> str:
    """The one DNS name of a device: its leaf carries it and its CA is constrained to it."""
    return f"{node_id}.mesh"


@dataclass(frozen=True, slots=True)
class Leaf:
    """The leaf in use."""

    chain_pem: bytes
    key_pem: bytes
    issued_s: float
    renew_at_s: float
    not_after_s: float
    credential: Credential
    roots_pem: bytes


class LeafKeeper:
    """Keeps a valid leaf at hand and feeds gRPC with it; safe to use from gRPC's threads."""

    def __init__(self, identity: LeafIssuer, wall_s: Callable[[], float]) -> None:
        self._identity = identity
        self._wall_s = wall_s
        self._lock = threading.Lock()
        self._leaf: Leaf | None = None
        self._dialled: tuple[Leaf, grpc.ChannelCredentials] | None = None

    def current(self) -> Leaf:
        """A leaf with a good part of its life before it, issued now where there is none."""
        with self._lock:
            return self._current()

    def _current(self) -> Leaf:
        now_s = self._wall_s()
        leaf = self._leaf
        if (
            leaf is None
            or not leaf.issued_s - CLOCK_STEP_S <= now_s < leaf.renew_at_s
            or leaf.credential is not self._identity.credential
            or leaf.roots_pem != self._identity.trust.root_pem
        ):
            leaf = self._leaf = self._issue(now_s)
        return leaf

    def rotate(self) -> None:
        """Issue another leaf at once: connections from now on show it, present ones stay as they are."""
        with self._lock:
            self._leaf = self._issue(self._wall_s())

    def _issue(self, now_s: float) -> Leaf:
        leaf = self._identity.issue_leaf(now_s)
        renew_at_s = now_s + RENEW_AT * (leaf.not_after_s - now_s)
        return Leaf(
            leaf.chain_pem,
            leaf.key_pem,
            now_s,
            renew_at_s,
            leaf.not_after_s,
            self._identity.credential,
            self._identity.trust.root_pem,
        )

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials for one port, which ask for the leaf with every connection and demand one of our fleet.

        One object serves one port: gRPC keeps a configuration a port, and the answer "no change" is about that one.
        """
        with self._lock:
            served = [self._current()]
        fetch = partial(self._fetch, served)
        return grpc.dynamic_ssl_server_credentials(
            _configuration(served[0]),
            fetch,  # type: ignore[arg-type]  # the stubs forget that None means no change
            require_client_authentication=True,
        )

    def _fetch(self, served: list[Leaf]) -> grpc.ServerCertificateConfiguration | None:
        # gRPC calls this in a thread of its own before each handshake; None keeps what it has
        with self._lock:
            try:
                leaf = self._current()
            except IdentityError:
                # the credential ran out: the old leaf stays and peers refuse it, which they report better than we do
                return None
            if leaf is served[0]:
                return None
            served[0] = leaf
            return _configuration(leaf)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials for dialling, with the present leaf and the fleet's roots as the only anchors."""
        with self._lock:
            leaf = self._current()
            if self._dialled is None or self._dialled[0] is not leaf:
                credentials = grpc.ssl_channel_credentials(leaf.roots_pem, leaf.key_pem, leaf.chain_pem)
                self._dialled = (leaf, credentials)
            return self._dialled[1]


def _configuration(leaf: Leaf) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(leaf.key_pem, leaf.chain_pem)], root_certificates=leaf.roots_pem)


def _shared_options(config: TransportConfig) -> ChannelOptions:
    return [
        ("grpc.max_send_message_length", MAX_FRAME_BYTES),
        ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
        ("grpc.keepalive_time_ms", _ms(config.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(config.keepalive_timeout_s)),
        # the keepalive alone waits a minute for its answer: a frozen process was never noticed without this one
        ("grpc.http2.ping_timeout_ms", _ms(config.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # no bandwidth probes: each is one more ping that a busy peer may answer too late; a frame and the next one fit
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 2 * MAX_FRAME_BYTES),
        ("grpc.max_metadata_size", 4096),
        ("grpc.absolute_max_metadata_size", 8192),
    ]


def server_options(config: TransportConfig) -> ChannelOptions:
    """Arguments of gRPC for the server. Its defaults are made for a data centre, not for a mesh on a radio."""
    return [
        *_shared_options(config),
        ("grpc.so_reuseport", 0),  # else two nodes silently share a port
        ("grpc.server_handshake_timeout_ms", _ms(config.handshake_timeout_s)),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 100),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
        ("grpc.max_concurrent_streams", MAX_STREAMS_PER_CONNECTION),
        ("grpc.max_connection_age_ms", _ms(config.max_link_age_s * AGE_BACKSTOP)),
        ("grpc.max_connection_age_grace_ms", _ms(AGE_GRACE_S)),
    ]


def channel_options(config: TransportConfig, peer: NodeId) -> ChannelOptions:
    """Arguments of gRPC for one dial of `peer`: a connection of its own that proves that name or fails, once."""
    return [
        *_shared_options(config),
        ("grpc.ssl_target_name_override", name_in_certificates(peer)),
        ("grpc.use_local_subchannel_pool", 1),  # a new link needs a new handshake
        ("grpc.enable_retries", 0),  # the dialler repeats, and a frame is never sent twice behind its back
        ("grpc.enable_http_proxy", 0),
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def _ms(seconds: float) -> int:
    return max(1, min(round(seconds * 1000), 2**31 - 1))


class SessionResumedError(IdentityError):
    """The peer came with a TLS ticket instead of a handshake."""


class PeerIdentifier:
    """Turns the TLS facts of a server's stream into the credential of the peer."""

    def __init__(self, book: PeerVerifier, wall_s: Callable[[], float]) -> None:
        self._book = book
        self._wall_s = wall_s

    def identify(self, auth: Mapping[str, Iterable[bytes]]) -> Credential:
        """Who the peer is, from gRPC's auth context.

        Never `peer_identities()`: it mixes DNS names, URIs and mail addresses that the peer chose.

        Raises:
            SessionResumedError: nothing was proved in this handshake.
            IdentityError: no certificate, or a chain that identity refuses.
        """
        if next(iter(auth.get("ssl_session_reused", ())), b"false") != b"false":
            # a ticket lives 48 h and would carry an expired or revoked leaf past every check
            raise SessionResumedError("the TLS session was resumed")
        leaf = next(iter(auth.get("x509_pem_cert", ())), b"")
        chain = next(iter(auth.get("x509_pem_cert_chain", ())), b"")
        if not leaf:
            raise IdentityError("the peer showed no certificate")
        return self._book.verify_peer(leaf, chain, now_s=self._wall_s())
