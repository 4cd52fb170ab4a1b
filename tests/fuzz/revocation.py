"""Fuzz what `CredentialBook.merge` takes from peers: revocation lists, attached credentials, roots."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

from meshagent.identity.keys import SIGNATURE_BYTES, Tag
from meshagent.identity.revocation import RevocationEntry, RevocationError, RevocationReason, sign_list
from tests.fuzz.engine import main
from tests.support.fleets import NOW_S, admit, authority, key_of


@functools.cache
def corpus() -> Sequence[bytes]:
    fleet = authority()
    guard = admit(fleet, "guard", may=("revoke:*",))
    admit(fleet, "dog")
    entries = [
        RevocationEntry(key_of(f"x{n}").public, n, RevocationReason.UNSPECIFIED, int(NOW_S) + 1000) for n in range(5)
    ]
    return [
        fleet.revoke("dog", now_s=NOW_S).signed,
        sign_list(fleet._root_key, fleet.fleet, entries, number=7, now_s=NOW_S).signed,
        sign_list(guard.key, fleet.fleet, entries, number=7, now_s=NOW_S, credential=guard.credential).signed,
        fleet.rotate_root(now_s=NOW_S),
    ]


def check(data: bytes) -> None:
    _check_signed(data)
    book = admit(authority(), "reader").open_book(now_s=NOW_S)
    before = book.notices()
    try:
        news = book.merge(data, now_s=NOW_S)
    except RevocationError:
        if book.notices() != before:
            raise AssertionError("a refused notice changed what is known") from None
        return
    if data not in corpus():
        raise AssertionError(f"an altered notice was accepted (news: {news})")


def _check_signed(data: bytes) -> None:
    """The same with a genuine signature of the root, so that what lies behind it is reached."""
    body = data[len(Tag.REVOCATION.value) : -SIGNATURE_BYTES]
    signed = Tag.REVOCATION.value + body + authority()._root_key.sign(Tag.REVOCATION, body)
    book = admit(authority(), "reader").open_book(now_s=NOW_S)
    with contextlib.suppress(RevocationError):
        book.merge(signed, now_s=NOW_S)
    memory = book.dump()
    again = admit(authority(), "reader").open_book(now_s=NOW_S, memory=memory)
    if again.notices() != book.notices():
        raise AssertionError("a restart forgets a revocation")


if __name__ == "__main__":
    main("tests.fuzz.revocation")
