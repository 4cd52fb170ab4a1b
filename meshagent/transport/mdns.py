"""Finding the first peers by multicast DNS: announce this node, listen, ask now and then, say goodbye.

mDNS is a hint, never an identity: whatever it says, TLS proves who answers. It only bootstraps, so it grows quiet once
a link exists (at 100 nodes mDNS alone costs 13 CPU-seconds). Addresses outside our own networks are not followed:
otherwise one forged record would send a whole fleet knocking at a stranger's door.

zeroconf parses and answers; when to ask is decided here, because its browser cannot be slowed down. Questions ask for
multicast answers only: a unicast answer reaches one of the processes that share port 5353 on a machine, not all.

Loopback: multicast on `lo` works for IPv4 although the interface does not say so; there is no IPv6 multicast route on
it, so ::1 is announced in IPv4 packets.

Source: RFC 6762, RFC 6763.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from zeroconf import (  # type: ignore[attr-defined]  # exported for years, only not in __all__
    BadTypeInNameException,
    DNSOutgoing,
    DNSPointer,
    DNSQuestion,
    IPVersion,
    RecordUpdate,
    RecordUpdateListener,
    ServiceInfo,
    Zeroconf,
    current_time_millis,
)
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from meshagent.errors import TransportError
from meshagent.transport.interfaces import Interface, chosen_interfaces, on_same_network
from meshagent.types import NodeId, public_key_of

log = logging.getLogger(__name__)

SERVICE: Final = "_meshagent._tcp.local."
PROTOCOL: Final = "1"
"""TXT `v`: the version of the link protocol; others are counted and not dialled."""
FLEET_CHARS: Final = 16
"""TXT `f`: the start of the fleet's id, enough to pass over other fleets."""
TTL_S: Final = 1200
"""How long a crashed peer stays announced: four times `browse_linked_s`, so that a quiet node still keeps those alive.
RFC 6762's 75 minutes are for printers; zeroconf takes no less than 1125 s."""
QUICK_QUERIES_S: Final = (0.02, 1.0, 3.0)
"""When the first questions go out; the rest follow `browse_lonely_s` or `browse_linked_s`."""
MAX_SERVICES: Final = 512
"""Instances looked at; the oldest is forgotten for a new one, so that forged records cost bounded memory."""
MAX_ADDRESSES: Final = 4
"""Addresses of one instance that are handed on."""
MAX_OTHER_FLEETS: Final = 16
_QUERY: Final = 0
_CLASS_IN: Final = 1
_TYPE_PTR: Final = 12
"""RFC 1035 3.2, 4.1."""
_FLEET: Final = re.compile(r"[a-z2-7]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MdnsStatus:
    """What multicast has shown so far, for doctor."""

    interfaces: tuple[str, ...]
    queries_sent: int
    heard_own_echo: bool
    """Our own announcement came back through this device's network stack. If not, the device itself filters multicast;
    an access point that does so still lets the echo through, and then nobody else is heard."""
    peers_heard: dict[str, int]
    """Interface name -> members of our fleet announced there."""
    other_fleets: dict[str, int]
    """Start of the fleet's id -> devices announced."""
    other_versions: int
    """Members of our fleet announcing another protocol version."""
    own_id_elsewhere: tuple[str, ...]
    """Addresses announced under our own identity by another process: usually a copied disk."""
    foreign_addresses: int
    """Announced addresses not followed because they lie in no network of ours."""
    malformed: int


@dataclass(slots=True)
class _Service:
    """One announced instance that was understood."""

    peer: NodeId | None
    """Set for a member of our fleet that is not this device."""
    fleet: str
    addresses: tuple[str, ...]
    port: int
    interfaces: tuple[str, ...]


class Mdns:
    """This node on multicast DNS."""

    def __init__(
        self,
        *,
        node_id: NodeId,
        fleet_id: str,
        interfaces: Sequence[str],
        browse_s: Callable[[], float],
        rescan_s: float,
        rng: Random,
        found: Callable[[NodeId, str, int], None],
        lost: Callable[[NodeId], None],
        twin: Callable[[str, int], None],
    ) -> None:
        """Prepare.

        Args:
            node_id: announced, so that nobody needs to knock to learn it.
            fleet_id: announced by its first characters.
            interfaces: names as in the configuration; empty for all.
            browse_s: seconds until the next question, asked after each; how the node grows quiet.
            rescan_s: how often the interfaces are looked at again.
            rng: jitter.
            found: told of every address (ip, port) of a member of the fleet.
            lost: told when a member said goodbye or its records ran out.
            twin: told where our own id is announced by another process.
        """
        self._node_id = node_id
        self._fleet = fleet_id[:FLEET_CHARS]
        self._names = tuple(interfaces)
        self._browse_s = browse_s
        self._rescan_s = rescan_s
        self._rng = rng
        self._found = found
        self._lost = lost
        self._twin = twin
        self._label = f"{secrets.token_hex(8)}.{SERVICE}"
        self._server = f"{self._label.partition('.')[0]}.local."
        self._zeroconf: AsyncZeroconf | None = None
        self._ip_version = IPVersion.All
        self._listener: _Listener | None = None
        self._interfaces: list[Interface] = []
        self._services: OrderedDict[str, _Service | None] = OrderedDict()
        self._info: ServiceInfo | None = None
        self._port = 0
        self._queries = 0
        self._echo = False
        self._foreign = 0
        self._malformed = 0
        self._versions: set[str] = set()
        self._twins: dict[str, str] = {}
        self._soon = asyncio.Event()

    async def start(self, port: int) -> None:
        """Announce this node at `port` and listen.

        Raises:
            OSError: no multicast socket to be had.
        """
        self._port = port
        self._interfaces = chosen_interfaces(self._names)
        zeroconf = self._open()
        self._zeroconf = zeroconf
        await zeroconf.zeroconf.async_wait_for_start()
        self._listener = _Listener(self)
        zeroconf.zeroconf.async_add_listener(self._listener, None)
        self._info = self._describe()
        # the announcements go out while we go on; cooperating: the random name needs no 1.2 s of probing
        await zeroconf.async_register_service(self._info, cooperating_responders=True)

    def _open(self) -> AsyncZeroconf:
        chosen = _zeroconf_interfaces(self._interfaces)
        try:
            return AsyncZeroconf(interfaces=chosen, ip_version=self._ip_version)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
        self._ip_version = IPVersion.V4Only  # a kernel without IPv6
        return AsyncZeroconf(interfaces=[ip for ip in chosen if isinstance(ip, str)], ip_version=self._ip_version)

    def _describe(self) -> ServiceInfo:
        addresses = [address.ip.packed for interface in self._interfaces for address in interface.addresses]
        return ServiceInfo(
            SERVICE,
            self._label,
            port=self._port,
            addresses=addresses,
            properties={"v": PROTOCOL, "f": self._fleet, "id": self._node_id},
            server=self._server,
            host_ttl=TTL_S,
            other_ttl=TTL_S,
        )

    async def run(self) -> None:
        """Ask and rescan until cancelled."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        for at_s in QUICK_QUERIES_S:
            await asyncio.sleep(max(0.0, started_s + at_s * (0.5 + self._rng.random() / 2) - loop.time()))
            self._ask()
        asked_s = rescanned_s = loop.time()
        while True:
            due_s = asked_s + self._browse_s()
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(due_s, rescanned_s + self._rescan_s) - loop.time()):
                    await self._soon.wait()
            if loop.time() >= rescanned_s + self._rescan_s:
                rescanned_s = loop.time()
                await self._rescan()
            if loop.time() >= asked_s + self._browse_s():
                asked_s = loop.time()
                self._ask()

    def nudge(self) -> None:
        """`browse_s` may have become shorter (the last link is gone): look at it again."""
        self._soon.set()

    def _ask(self) -> None:
        """Send one question for our service with what we know already, so that only news is answered."""
        if self._zeroconf is None or self._zeroconf.zeroconf.done:
            return
        zeroconf = self._zeroconf.zeroconf
        out = DNSOutgoing(_QUERY)
        out.add_question(DNSQuestion(SERVICE, _TYPE_PTR, _CLASS_IN))
        now_ms = current_time_millis()
        for record in zeroconf.cache.async_all_by_details(SERVICE, _TYPE_PTR, _CLASS_IN):
            if not record.is_stale(now_ms):
                out.add_answer_at_time(record, now_ms)
        zeroconf.async_send(out)
        self._queries += 1

    async def _rescan(self) -> None:
        """Follow the device into another network."""
        try:
            present = chosen_interfaces(self._names)
        except TransportError:
            return  # the cable is out or the radio is off; it is looked at again
        if present == self._interfaces or self._zeroconf is None:
            return
        log.info("network interfaces changed: %s", ", ".join(interface.name for interface in present))
        self._interfaces = present
        try:
            await self._zeroconf.async_update_interfaces(_zeroconf_interfaces(present), self._ip_version)
        except (OSError, RuntimeError) as error:
            log.warning("mDNS could not follow: %s", error)
            return
        self._info = self._describe()
        await self._zeroconf.async_update_service(self._info)
        self._ask()

    async def close(self, timeout_s: float) -> None:
        """Say goodbye three times (0.25 s) and close the sockets."""
        if self._zeroconf is None:
            return
        if self._listener is not None:
            self._zeroconf.zeroconf.async_remove_listener(self._listener)
        try:
            async with asyncio.timeout(timeout_s):
                await self._zeroconf.async_close()
        except TimeoutError:
            log.warning("mDNS did not close within %.1f s", timeout_s)
        self._zeroconf = None

    # -- what others announce ----------------------------------------------------------------------------------------

    def announced(self, name: str) -> None:
        """An instance was announced or its records changed: read what the cache has."""
        if self._zeroconf is None or not name.endswith("." + SERVICE):
            return
        if name == self._label:
            self._echo = True
            return
        try:
            info = AsyncServiceInfo(SERVICE, name)
        except BadTypeInNameException:
            return  # control characters and the like: a stranger's name, and nothing of ours
        if not info.load_from_cache(self._zeroconf.zeroconf) or not info.port:
            return  # the rest comes in another packet, or never
        service = self._understand(info)
        before = self._services.pop(name, None)
        self._services[name] = service
        while len(self._services) > MAX_SERVICES:
            self._services.popitem(last=False)
        if service is None or service.peer is None or service == before:
            return
        for address in service.addresses:
            self._found(service.peer, address, service.port)

    def withdrawn(self, name: str) -> None:
        """Goodbye, or the records ran out."""
        service = self._services.pop(name, None)
        if service is None or service.peer is None:
            return
        if not any(other is not None and other.peer == service.peer for other in self._services.values()):
            self._lost(service.peer)

    def _understand(self, info: ServiceInfo) -> _Service | None:
        texts = {key: (value or b"") for key, value in info.properties.items() if len(value or b"") <= 64}
        fleet = texts.get(b"f", b"").decode("ascii", "replace")
        peer_text = texts.get(b"id", b"").decode("ascii", "replace")
        if not _FLEET.fullmatch(fleet):
            self._malformed += 1
            return None
        addresses, interfaces = self._reachable(info)
        if fleet != self._fleet:
            return _Service(None, fleet, addresses, info.port or 0, interfaces)
        try:
            public_key_of(peer_text)
        except ValueError:
            self._malformed += 1
            return None
        if texts.get(b"v") != PROTOCOL.encode():
            self._versions.add(peer_text)
            if len(self._versions) > MAX_SERVICES:
                self._versions.clear()
            return None
        peer = NodeId(peer_text)
        if peer == self._node_id:
            if len(self._twins) < MAX_OTHER_FLEETS:
                self._twins[info.name] = ", ".join(addresses) or "an unknown address"
            for address in addresses:
                self._twin(address, info.port or 0)
            return None
        return _Service(peer, fleet, addresses, info.port or 0, interfaces)

    def _reachable(self, info: ServiceInfo) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its addresses in our own networks, and the interfaces that these belong to."""
        near: list[str] = []
        names: list[str] = []
        for ip in info.parsed_scoped_addresses(IPVersion.All):
            hit = [interface.name for interface in self._interfaces if on_same_network(ip, (interface,))]
            if not hit:
                self._foreign += 1
            elif len(near) < MAX_ADDRESSES:
                near.append(ip)
                names.extend(hit)
        return tuple(near), tuple(dict.fromkeys(names))

    def status(self) -> MdnsStatus:
        """What multicast has shown so far."""
        services = [service for service in self._services.values() if service is not None]
        heard = {interface.name: 0 for interface in self._interfaces}
        others: dict[str, int] = {}
        for service in services:
            if service.peer is None:
                if service.fleet in others or len(others) < MAX_OTHER_FLEETS:
                    others[service.fleet] = others.get(service.fleet, 0) + 1
                continue
            for name in service.interfaces:
                heard[name] = heard.get(name, 0) + 1
        return MdnsStatus(
            interfaces=tuple(interface.name for interface in self._interfaces),
            queries_sent=self._queries,
            heard_own_echo=self._echo,
            peers_heard=heard,
            other_fleets=others,
            other_versions=len(self._versions),
            own_id_elsewhere=tuple(self._twins.values()),
            foreign_addresses=self._foreign,
            malformed=self._malformed,
        )


class _Listener(RecordUpdateListener):
    """Gathers the names that a packet concerns, and passes them on when its records are in the cache."""

    def __init__(self, mdns: Mdns) -> None:
        self._mdns = mdns
        self._announced: dict[str, None] = {}
        self._withdrawn: dict[str, None] = {}

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """Called before the cache has them."""
        for update in records:
            record = update.new
            if isinstance(record, DNSPointer):
                if record.name == SERVICE:
                    (self._withdrawn if record.is_expired(now) else self._announced)[record.alias] = None
            elif record.name.endswith(SERVICE) and not record.is_expired(now):
                self._announced[record.name] = None

    def async_update_records_complete(self) -> None:
        """Called when the cache has them."""
        announced, withdrawn = self._announced, self._withdrawn
        self._announced, self._withdrawn = {}, {}
        for name in withdrawn:
            self._mdns.withdrawn(name)
        for name in announced:
            if name not in withdrawn:
                self._mdns.announced(name)


def _zeroconf_interfaces(interfaces: Sequence[Interface]) -> list[str | int]:
    """IPv4 addresses and, for IPv6, interface indexes; loopback without IPv6, which has no multicast route there."""
    chosen: list[str | int] = []
    for interface in interfaces:
        chosen.extend(str(address.ip) for address in interface.addresses if address.ip.version == 4)
        if not interface.loopback and any(address.ip.version == 6 for address in interface.addresses):
            chosen.append(interface.index)
    return chosen
