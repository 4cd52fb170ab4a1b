"""What docs/protocol.md says in tables and numbers is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from meshagent.core import clock
from meshagent.core.acts import (
    AMONG_CUSTODIANS,
    FROM_INITIATOR,
    MAX_CHECKPOINT_BYTES,
    MAX_RESULT_BYTES,
    MAX_SPEC_BYTES,
    MAX_TEXT_CHARS,
    Performative,
)
from meshagent.core.contract_net import bidding, calling, ending, records
from meshagent.core.contract_net.authority import INITIATOR, PARTICIPANT, Ruling
from meshagent.core.contract_net.interface import ContractConfig
from meshagent.core.contract_net.records import Stage
from meshagent.identity import certificates, credential, envelope, gate, hello, keys, replay, revocation, trust
from meshagent.runtime import links, outbox, story
from meshagent.transport import config as transport
from meshagent.transport import mdns, mesh
from meshagent.wire import acts, codec, frame
from meshagent.wire.v1 import contract_pb2 as pb

DOCUMENT: Final = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
TEXT: Final = re.sub(r"\s+", " ", DOCUMENT)
CONTRACT: Final = ContractConfig()
OUTBOX: Final = outbox.OutboxConfig()
TRANSPORT: Final = transport.TransportConfig()

SAID: Final[tuple[tuple[str, tuple[object, ...], tuple[object, ...]], ...]] = (
    # 2, 3
    (r"at most (\d+) roots", (16,), (trust.MAX_ROOTS,)),
    (
        r"from (\d+) days before issue, for (\d+) years",
        (400, 20),
        (trust.LONG_AGO_S // 86400, trust.ROOT_LIFETIME_S // 31536000),
    ),
    (r"`ARC` is `([\d.]+)`", ("2.25.166661804704122676513541749248498749604",), (trust.OID_ARC,)),
    (r"DER, at most (\d+) bytes", (8192,), (trust.MAX_CERTIFICATE_BYTES,)),
    (r"at most (\d+) of each, none twice", (64,), (credential.MAX_PATTERNS,)),
    (r"`revoke:\*` \(exactly\)", (), ()),
    # 4, 5
    (r"service `(_meshagent[^`]*)`", ("_meshagent._tcp.local.",), (mdns.SERVICE,)),
    (r"TTL (\d+) s", (1200,), (mdns.TTL_S,)),
    (r"at most (\d) addresses an instance, (\d+) instances", (4, 512), (mdns.MAX_ADDRESSES, mdns.MAX_SERVICES)),
    (r"Default port: (\d+)", (7340,), (TRANSPORT.port,)),
    (r"more than (\d+) links at once and (\d) a second", (32, 2), (mesh.ARRIVALS_BURST, int(mesh.ARRIVALS_A_S))),
    (r"hold for ([\d.]+) s without an answer", (0.4,), (TRANSPORT.hold_s,)),
    (r"ended within (\d+) s did not work", (10,), (int(TRANSPORT.steady_after_s),)),
    (r"`RESOURCE_EXHAUSTED` \((\d+) links, (\d+) peers", (512, 1024), (transport.MAX_LINKS, transport.MAX_PEERS)),
    # 6, 7
    (r"at most (\d) Hellos from one side", (4,), (hello.MAX_HELLOS,)),
    (r"([\d,]+) higher is a jump", ("10,000",), (f"{replay.MAX_BOOT_JUMP:,}",)),
    (r"without satisfaction after (\d) s", (5,), (int(links.LinksConfig().greet_within_s),)),
    (
        r"([\d,]+) bytes, (\d+) batches, (\d+) messages",
        ("262,144", 16, 256),
        (f"{frame.MAX_FRAME_BYTES:,}", frame.MAX_FRAME_BATCHES, frame.MAX_FRAME_MESSAGES),
    ),
    (r"(\d+) unreadable frames", (16,), (links.MAX_MALFORMED,)),
    (r"within ([\d.]+) s, on data or alone", (0.1,), (OUTBOX.ack_delay_s,)),
    (r"at most (\d) frames unacknowledged", (2,), (OUTBOX.window,)),
    (r"acknowledgement comes for ([\d.]+) s", (0.25,), (OUTBOX.release_s,)),
    # 8, 9, 10
    (
        r"Used: ([\d,]+) for acts, events and stories, ([\d,]+) for",
        ("10,000", "600,000"),
        (f"{links.ACT_TTL_MS:,}", f"{links.STICKY_TTL_MS:,}"),
    ),
    (r"ttl_ms \| 1 to ([\d,]+)", ("86,400,000",), (f"{envelope.MAX_TTL_MS:,}",)),
    (r"leaves \| 1 to (\d+)", (1024,), (envelope.MAX_LEAVES,)),
    (r"below -([\d,]+): from the future", ("17,000",), (f"{gate.MAX_AHEAD_MS:,}",)),
    (r"ttl_ms \+ (\d+)`: stale", (2000,), (gate.SLACK_MS,)),
    (r"or (\d+) or more below the highest", (1024,), (replay.WINDOW,)),
    (r"over (\d+) ms ahead of `physical`", (5000,), (clock.MERGE_AHEAD_MS,)),
    (
        r"at most ([\d,]+) ms ahead of `physical` \((\d+) ms",
        ("10,000", 10),
        (f"{clock.RESERVE_MS:,}", clock.AHEAD_RESERVE_MS),
    ),
    # 11, 12
    (
        r"(\d+) a second to one peer and (\d+) in all",
        (10, 50),
        (story.MAX_ANSWERS_A_PEER_S, story.MAX_ANSWERS_A_S),
    ),
    (r"`result` have (\d+) KiB together", (40,), (story.MAX_BLOB_BYTES // 1024,)),
    (r"would exceed (\d+) KiB", (56,), (story.MAX_REPLY_BYTES // 1024,)),
    (r"at most ([\d,]+) bytes \| \| delivery", ("32,768",), (f"{MAX_SPEC_BYTES:,}",)),
    (
        r"texts at most (\d+) characters, result ([\d,]+) bytes, checkpoint ([\d,]+) bytes",
        (500, "49,152", "24,576"),
        (MAX_TEXT_CHARS, f"{MAX_RESULT_BYTES:,}", f"{MAX_CHECKPOINT_BYTES:,}"),
    ),
    (r"length\(more\)/(\d+)", (76,), (acts.REJECTION_BYTES,)),
    (r"reply_within \| ([\d.]+)", (0.4,), (CONTRACT.reply_within_s,)),
    (r"award_timeout \| ([\d.]+)", (0.4,), (CONTRACT.award_timeout_s,)),
    (r"resend, resend_max \| ([\d.]+), (\d)", (0.12, 2), (CONTRACT.resend_s, int(CONTRACT.resend_max_s))),
    (r"L, the lease \| (\d) ", (2,), (int(CONTRACT.lease_s),)),
    (r"min\(([\d.]+), L / ([\d.]+)\)", (0.6, 3.2), (CONTRACT.renew_s, 3.2)),
    (r"delay d \| ([\d.]+), ([\d.]+)", (0.03, 0.1), (CONTRACT.clock_drift, CONTRACT.max_delay_s)),
    (r"the initiator waits; ([\d.]+)", (2.22,), (round(CONTRACT.lease_wait_s(), 3),)),
    (r"backoff \| min\((\d), ([\d.]+)", (8, 0.5), (int(CONTRACT.backoff_max_s), CONTRACT.backoff_s)),
    (r"keep \| (\d+)", (3600,), (int(CONTRACT.keep_s),)),
    (r" p = (\d)", (4,), (CONTRACT.potential_p,)),
    (r"tolerance ([\d.]+)\.", (0.05,), (CONTRACT.award_tolerance,)),
    (r"answers its key for (\d+) s", (60,), (int(CONTRACT.answers_key_s),)),
    (r"called within (\d) s are \*\*rivals", (1,), (int(bidding.RIVAL_S),)),
    (r"`lease_ms`, 1 to ([\d,]+)", ("600,000",), (f"{int(bidding.MAX_LEASE_S * 1000):,}",)),
    (r"higher by at most 2\^(\d+)", (20,), (calling.MAX_EPOCH_JUMP.bit_length() - 1,)),
    (r"up to (\d) times: new call", (3,), (ending.MAX_FAILURES,)),
    (r"from the (\w+) time on after", ("third",), (("first", "second", "third", "fourth")[ending.PATIENT_FORFEITS],)),
    (r"version is higher \(at most 2\^(\d+)\)", (40,), (records.MAX_CHECKPOINT_VERSION.bit_length() - 1,)),
    # 13
    (r"at most (\d+) \| signature 64", (2048,), (revocation.MAX_ENTRIES,)),
    (r"signed has at most ([\d,]+) bytes", ("65,000",), (f"{revocation.MAX_SIGNED_BYTES:,}",)),
    (r"up to (\d) older ones", (7,), (revocation.MAX_LISTS_A_SIGNER - 1,)),
    (r"At most (\d+) signers", (16,), (revocation.MAX_SIGNERS,)),
)


@pytest.mark.parametrize(
    ("pattern", "written", "built"), SAID, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_number_in_the_document_is_the_number_in_the_code(
    pattern: str, written: tuple[object, ...], built: tuple[object, ...]
) -> None:
    found = re.search(pattern, TEXT)
    assert found is not None, f"the document does not say {pattern}"
    assert found.groups() == tuple(str(one) for one in written)
    assert written == built


def table(header: str) -> list[list[str]]:
    """The rows of the table whose first line starts so, cells stripped."""
    lines = DOCUMENT[DOCUMENT.index(f"\n{header}") + 1 :].splitlines()
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def word(name: str) -> Performative:
    return Performative(re.sub(r"(?<!^)(?=[A-Z])", "_", name.strip("`")).lower())


def test_the_table_of_the_participant_is_the_one_that_is_built() -> None:
    header, _, *rows = table("| act | stage none |")
    stages = [None, *(Stage(name.strip().lower()) for name in header[2:])]
    assert {word(row[0]) for row in rows} == FROM_INITIATOR | {Performative.NOT_UNDERSTOOD}
    for row in rows:
        assert len(row) == 1 + len(stages)
        for cell, stage in zip(row[1:], stages, strict=True):
            ruling = PARTICIPANT.get((word(row[0]), stage), Ruling.ILLEGAL)
            assert (cell == "illegal") == (ruling is Ruling.ILLEGAL), (row[0], stage, cell)
            if ruling is Ruling.LATE:
                assert cell == "-", (row[0], stage, cell)


def test_the_table_of_the_initiator_names_every_act_that_goes_to_it() -> None:
    _, _, *rows = table("| act | from | phase |")
    named = {word(name) for row in rows for name in row[0].split(", ")}
    assert named == {act for act, _, _ in INITIATOR}
    assert not named & AMONG_CUSTODIANS, "these stand in the section on custody"


def test_the_table_of_acts_names_every_act_once() -> None:
    _, _, *rows = table("| act | from | answered by |")
    names = [word(name) for row in rows for name in row[0].split(", ")]
    assert sorted(names) == sorted(Performative)
    for row in rows:
        for name in row[0].split(", "):
            sender = (
                "both" if word(name) is Performative.NOT_UNDERSTOOD else "I" if word(name) in FROM_INITIATOR else "P"
            )
            assert row[1] == sender, row


def test_every_tag_in_the_document_is_a_tag_of_the_code() -> None:
    _, _, *rows = table("| tag | signs |")
    assert {row[0].strip("`") for row in rows} == {f'"{tag.value[:-1].decode()}\\0"' for tag in keys.Tag}


def test_every_number_of_a_type_about_nodes_is_in_the_document() -> None:
    _, _, *rows = table("| type | message | rules |")
    told = {
        name.strip("` "): number.strip()
        for row in rows
        for number, name in zip(row[0].split(","), row[1].split(","), strict=True)
    }
    assert told == {
        "Profile": str(pb.MESSAGE_TYPE_PROFILE),
        "Event": str(pb.MESSAGE_TYPE_EVENT),
        "StoryQuery": str(pb.MESSAGE_TYPE_STORY_QUERY),
        "StoryReply": str(pb.MESSAGE_TYPE_STORY_REPLY),
        "RevocationNotice": str(pb.MESSAGE_TYPE_REVOCATION_NOTICE),
        "Membership": str(pb.MESSAGE_TYPE_MEMBERSHIP),
    }
    assert set(map(int, told.values())) == {number for number in codec.TYPE_OF.values() if number < 16}


def test_the_order_of_the_extensions_is_not_said_but_their_number_is() -> None:
    assert len(certificates._CREDENTIAL_EXTENSIONS) == 10
    assert len(certificates._LEAF_EXTENSIONS) == 6
    assert "All ten extensions and no others" in DOCUMENT
    assert "Exactly these six extensions" in DOCUMENT
