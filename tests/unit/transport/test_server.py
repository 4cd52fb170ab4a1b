"""What the listening side makes of words that a peer or gRPC chose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.transport.dialler import META_PORT
from meshagent.transport.server import _listens_at, ip_of


@pytest.mark.parametrize(
    ("uri", "ip"),
    [
        ("ipv4:10.0.4.20:51234", "10.0.4.20"),
        ("ipv6:%5B::1%5D:51234", "::1"),
        ("ipv6:%5B::ffff:10.0.4.20%5D:51234", "10.0.4.20"),
        ("ipv6:%5Bfe80::9%252%5D:51234", "fe80::9%2"),
        ("unix:/tmp/socket", ""),
        ("", ""),
    ],
)
def test_address_of_a_peer_is_read_from_what_grpc_says(uri: str, ip: str) -> None:
    # gRPC escapes the brackets and the percent sign of a scope once each
    assert ip_of(uri) == ip


@given(st.text(max_size=80))
def test_any_other_spelling_has_no_address(uri: str) -> None:
    found = ip_of(uri)
    assert found == "" or uri.startswith(("ipv4:", "ipv6:"))


@pytest.mark.parametrize(("said", "port"), [("7340", 7340), ("1", 1), ("65535", 65535)])
def test_port_that_a_peer_listens_on_is_believed_at_its_own_address_alone(said: str, port: int) -> None:
    assert _listens_at("10.0.4.20", {META_PORT: said}) == ("10.0.4.20", port)
    assert _listens_at("", {META_PORT: said}) is None


@pytest.mark.parametrize("said", ["", "0", "65536", "99999", "-1", "+1", " 80", "8 0", "0080", "٣", "1e3", "9" * 5000])
def test_port_that_is_none_is_not_believed(said: str) -> None:
    assert _listens_at("10.0.4.20", {META_PORT: said}) is None


@given(st.text(max_size=12))
def test_any_port_leads_to_the_peers_own_address_or_nowhere(said: str) -> None:
    place = _listens_at("10.0.4.20", {META_PORT: said})
    assert place is None or (place[0] == "10.0.4.20" and 0 < place[1] < 65536)
