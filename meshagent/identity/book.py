"""Whom this node knows: credentials, the highest generation of each, revocations, and the floor of time.

The book remembers what a liar would like forgotten: which generation of a device's credential is the newest (an
expired administrator's certificate beside a new one would otherwise pass), what was revoked, and the newest time that
the root ever signed (a clock turned back would otherwise bring expired credentials back to life). `dump` and `load`
carry that over a restart; `on_change` says when to dump.

Source: SECURITY-DESIGN 3, 5.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from meshagent.errors import IdentityError
from meshagent.identity.certificates import (
    VerifiedChain,
    chain_fingerprint,
    split_pem,
    verify_chain,
    verify_credential,
)
from meshagent.identity.credential import CertificateError, CertificateFault, Credential
from meshagent.identity.revocation import RevocationEntry, RevocationError, RevocationSet, parse_list, verify_list
from meshagent.identity.trust import Trust
from meshagent.strictpack import StrictDecodeError, packb, unpackb
from meshagent.types import NodeId, public_key_of

MAX_DEVICES: Final = 8192
"""Devices of one fleet. Only credentials that a root signed land here, so the owner bounds it first."""
MAX_CACHED_CHAINS: Final = 1024
"""Verified chains by fingerprint: 0.6 ms saved for each reconnection."""
MAX_DUMP_BYTES: Final = 64 * 1024 * 1024
_DUMP_VERSION: Final = 1


class CredentialBook:
    """Knows every device of the fleet that has shown itself, and decides who is current."""

    def __init__(self, trust: Trust, *, on_change: Callable[[], None] | None = None) -> None:
        self.trust = trust
        self.revocations = RevocationSet()
        self._on_change = on_change
        self._known: dict[bytes, Credential] = {}
        self._generations: dict[bytes, int] = {}
        self._floor_s = max(root.issued_at_s for root in trust.anchors(0))
        self._chains: OrderedDict[bytes, VerifiedChain] = OrderedDict()

    @property
    def time_floor_s(self) -> int:
        """Wall seconds: it is at least as late as that, because the root has signed it."""
        return self._floor_s

    def time_s(self, now_s: float) -> float:
        """`now_s`, or the floor where this device's clock lags behind it."""
        return now_s if now_s > self._floor_s else float(self._floor_s)

    def verify_peer(self, leaf: bytes, chain: bytes | Sequence[bytes], *, now_s: float) -> Credential:
        """Whom a TLS peer proves to be. `leaf` DER or PEM; `chain` PEM or DERs, with or without the leaf.

        Raises:
            CertificateError: with the fault; also for superseded and revoked credentials.
        """
        leaf_der = split_pem(leaf)[0] if leaf.startswith(b"-----") else leaf
        ders = split_pem(chain) if isinstance(chain, bytes) else list(chain)
        time_s = self.time_s(now_s)
        others = [data for data in ders if data != leaf_der]
        fingerprint = chain_fingerprint(leaf_der, others[0]) if len(others) == 1 and len(ders) <= 2 else b""
        verified = self._chains.get(fingerprint) if fingerprint else None
        if verified is None or time_s >= verified.leaf_not_after_s or verified.credential.fault_at(time_s):
            self._chains.pop(fingerprint, None)
            verified = verify_chain(leaf_der, ders, self.trust, now_s=time_s)
            self._chains[fingerprint] = verified
            if len(self._chains) > MAX_CACHED_CHAINS:
                self._chains.popitem(last=False)
        else:
            self._chains.move_to_end(fingerprint)
        return self._take(verified.credential)

    def learn(self, credential_der: bytes, *, now_s: float) -> Credential:
        """Take in a credential from a Hello or a file.

        Raises:
            CertificateError: with the fault.
        """
        return self._take(verify_credential(credential_der, self.trust, now_s=self.time_s(now_s)))

    def note_own(self, credential: Credential) -> None:
        """Take in this node's own credential, already read; an expired one raises no floor and may not speak."""
        key = credential.public_key
        self._known[key] = credential
        self._generations[key] = max(self._generations.get(key, 0), credential.generation)
        self._floor_s = max(self._floor_s, credential.issued_at_s)

    def find(self, peer: NodeId) -> Credential | None:
        """The newest credential seen of a device, current or not."""
        return self._known.get(public_key_of(peer))

    def known(self) -> tuple[Credential, ...]:
        """Every device seen, by id."""
        return tuple(sorted(self._known.values(), key=lambda credential: credential.peer))

    def speaker(self, public_key: bytes, *, now_s: float) -> Credential | CertificateFault:
        """The credential of a device that may speak now, or why it may not. Cheap: asked for every batch."""
        credential = self._known.get(public_key)
        if credential is None:
            return CertificateFault.UNKNOWN
        if credential.generation < self.revocations.min_generation(public_key):
            return CertificateFault.REVOKED
        floor_s = self._floor_s
        return credential.fault_at(now_s if now_s > floor_s else floor_s) or credential

    def current(self, peer: NodeId, *, now_s: float) -> Credential | None:
        """The credential of a device that may speak now; None: unknown, ended or revoked."""
        found = self.speaker(public_key_of(peer), now_s=now_s)
        return found if isinstance(found, Credential) else None

    def revoked(self, peer: NodeId) -> RevocationEntry | None:
        """The entry by which a device is out; None: it is not, or has a newer credential."""
        key = public_key_of(peer)
        entry, credential = self.revocations.entry(key), self._known.get(key)
        if entry is None or (credential is not None and credential.generation >= entry.min_generation):
            return None
        return entry

    def merge_revocations(self, data: bytes, *, now_s: float) -> bool:
        """Take in a list as it travels. True: it told something new; close links to who is revoked, spread it.

        Raises:
            RevocationError: malformed, forged, or by somebody who may not.
        """
        time_s = self.time_s(now_s)
        parsed, credential = verify_list(data, self.trust, now_s=time_s)
        if credential is not None:
            try:
                self._take(credential)
            except CertificateError as error:
                raise RevocationError(f"the signer's credential does not hold: {error}") from error
        news = self.revocations.add(parsed, credential, now_s=time_s)
        if credential is None and parsed.issued_at_s > self._floor_s:
            # Only roots move everybody's time: a captured revoker could otherwise expire the whole fleet.
            self._floor_s = parsed.issued_at_s
            news = True
        if news:
            self._changed()
        return news

    def notices(self) -> tuple[bytes, ...]:
        """What peers should know too: later roots, then revocation lists. Each goes to `merge` over there."""
        return (*self.trust.roots[1:], *self.revocations.spread())

    def notice_groups(self, max_bytes: int, max_notices: int) -> list[tuple[bytes, ...]]:
        """`notices` in groups of at most so many and `max_bytes`, one group a message; a larger one stands alone."""
        groups: list[list[bytes]] = []
        size = 0
        for notice in self.notices():
            if not groups or size + len(notice) > max_bytes or len(groups[-1]) >= max_notices:
                groups.append([])
                size = 0
            groups[-1].append(notice)
            size += len(notice)
        return [tuple(group) for group in groups]

    def merge(self, notice: bytes, *, now_s: float) -> bool:
        """Take in one of a peer's `notices`. True: it told something new, so pass it on.

        Raises:
            RevocationError: it is forged, malformed, or by somebody who may not.
        """
        if not notice.startswith(b"\x30"):
            return self.merge_revocations(notice, now_s=now_s)
        try:
            return self.extend_trust(notice)
        except CertificateError as error:
            raise RevocationError(f"not the next root: {error}") from error

    def extend_trust(self, root_der: bytes) -> bool:
        """Follow a rotation of the root. True: it was new.

        Raises:
            CertificateError: the newest root did not commit to it.
        """
        news = self.trust.extend(root_der)
        if news:
            self._chains.clear()
            self._floor_s = max(self._floor_s, self.trust.newest.issued_at_s)
            self._changed()
        return news

    def dump(self) -> bytes:
        """What must survive a restart."""
        generations = b"".join(key + generation.to_bytes(4, "big") for key, generation in self._generations.items())
        return packb(
            {
                "version": _DUMP_VERSION,
                "floor_s": self._floor_s,
                "generations": generations,
                "roots": list(self.trust.roots),
                "lists": list(self.revocations.spread()),
            }
        )

    def load(self, data: bytes) -> None:
        """Take back what `dump` gave, into a new book.

        Raises:
            IdentityError: not a dump of this fleet's book.
        """
        try:
            fields = unpackb(data, max_bytes=MAX_DUMP_BYTES)
            if not isinstance(fields, dict) or fields["version"] != _DUMP_VERSION:
                raise ValueError("another version")
            floor_s, generations = fields["floor_s"], fields["generations"]
            roots, lists = fields["roots"], fields["lists"]
            if type(floor_s) is not int or not isinstance(generations, bytes) or len(generations) % 36:
                raise ValueError("fields of another form")
            for root in roots:
                self.trust.extend(root)
            for at in range(0, len(generations), 36):
                key = generations[at : at + 32]
                generation = int.from_bytes(generations[at + 32 : at + 36], "big")
                self._generations[key] = max(self._generations.get(key, 0), generation)
            self._floor_s = max(self._floor_s, floor_s)
            for signed in lists:
                self._reload_list(signed)
        except (StrictDecodeError, CertificateError, RevocationError, ValueError, TypeError, LookupError) as error:
            raise IdentityError(f"the memory of known devices is damaged: {error}") from error

    def _reload_list(self, signed: bytes) -> None:
        # Checked as of the time it was issued: a revoker's credential may have ended since, its list holds on.
        issued_at_s = parse_list(signed).issued_at_s
        parsed, credential = verify_list(signed, self.trust, now_s=float(issued_at_s))
        self.revocations.add(parsed, credential, now_s=float(self._floor_s))

    def _take(self, credential: Credential) -> Credential:
        key = credential.public_key
        highest = self._generations.get(key, 0)
        if credential.generation < highest:
            raise CertificateError(
                CertificateFault.SUPERSEDED,
                f"{credential.name} shows credential {credential.generation}, number {highest} has been seen",
                next_step=f"on {credential.name}: install its newest credential file",
            )
        if credential.generation < self.revocations.min_generation(key):
            raise CertificateError(CertificateFault.REVOKED, f"{credential.name} was revoked")
        known = self._known.get(key)
        if known is not None and known.der == credential.der:
            return known
        if key not in self._generations and len(self._generations) >= MAX_DEVICES:
            raise CertificateError(CertificateFault.MALFORMED, f"over {MAX_DEVICES} devices in one fleet")
        if known is None or (credential.generation, credential.issued_at_s) >= (known.generation, known.issued_at_s):
            self._known[key] = credential
        news = credential.generation > highest or credential.issued_at_s > self._floor_s
        self._generations[key] = credential.generation
        self._floor_s = max(self._floor_s, credential.issued_at_s)
        if news:
            self._changed()
        return credential

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()
