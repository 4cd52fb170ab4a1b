"""Golden vectors of payloads and frames: one message of every type, every field set.

`python -m tests.conformance.messages --write` makes the file anew; the test compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from meshagent.core.acts import (
    Accept,
    Accepted,
    AcceptProposal,
    Acknowledge,
    Adopt,
    Cancel,
    Cancelled,
    Cfp,
    Checkpoint,
    Commit,
    Failure,
    Forfeit,
    Inform,
    Inquire,
    Nack,
    NotUnderstood,
    Outcome,
    OutcomeKnown,
    PassPointOfNoReturn,
    Performative,
    PointOfNoReturnRecorded,
    Prepare,
    Promise,
    Propose,
    QueryStatus,
    Refuse,
    RejectProposal,
    Renew,
    Renewed,
    Reserve,
    Standing,
    TaskRecord,
)
from meshagent.core.bodies import (
    Body,
    EventMessage,
    MembershipMessage,
    Profile,
    Rejections,
    RevocationNotice,
    StoryQuery,
    StoryReply,
)
from meshagent.identity.envelope import BROADCAST, SealedMessage
from meshagent.types import Delivery, Durability, Epoch, InDoubt, Reason, TaskState, node_id_of, task_id_of
from meshagent.wire import codec
from meshagent.wire.frame import frame_bytes, message_bytes

PATH = Path(__file__).with_name("messages.json")

ME: Final = node_id_of(bytes(range(32)))
OTHER: Final = node_id_of(bytes(range(32, 64)))
BOOT: Final = (7).to_bytes(8, "big") + b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7"
NONCE: Final = bytes(range(16))
TASK: Final = task_id_of(ME, BOOT, NONCE)
PARENT: Final = task_id_of(ME, BOOT, bytes(16))
EPOCH: Final = Epoch(3, ME, BOOT)
LATER: Final = Epoch(4, ME, BOOT)
RECORD: Final = TaskRecord(
    task=TASK,
    initiator=ME,
    boot=BOOT,
    nonce=NONCE,
    kind="pump.check.v1",
    spec=b"\x82\xa4site\xa6pump-7\xa9suspected\xaaouter race",
    delivery=Delivery.AT_LEAST_ONCE,
    in_doubt=InDoubt.WAIT,
    durability=Durability.LOCAL,
    priority=-3,
    key="pump-7",
    parent=PARENT,
    approval=True,
    custodians=(OTHER, ME),
    custodian_generation=2,
)
_TERMS: Final = {"task": TASK, "epoch": EPOCH}

BODIES: Final[dict[str, Body]] = {
    "prepare": Prepare(task=TASK, epoch=LATER),
    "promise": Promise(
        task=TASK,
        epoch=LATER,
        ballot=EPOCH,
        accepted=EPOCH,
        version=2,
        holder=OTHER,
        point_of_no_return=True,
        cancelled=True,
        grant_ms=1500,
        mark=17,
    ),
    "accept": Accept(
        task=TASK,
        epoch=EPOCH,
        ballot=EPOCH,
        version=2,
        record=RECORD,
        first=True,
        holder=OTHER,
        point_of_no_return=True,
        cancelled=True,
        lease_ms=2000,
        within_ms=60_000,
        adopts=True,
    ),
    "accepted": Accepted(task=TASK, epoch=EPOCH, version=2, mark=18),
    "nack": Nack(task=TASK, epoch=EPOCH, reason=Reason.STALE_EPOCH, promised=LATER),
    "outcome": Outcome(
        task=TASK,
        epoch=EPOCH,
        state=TaskState.DONE,
        holder=OTHER,
        result=b"\xc0",
        reason=Reason.OPERATOR,
        detail="a person said that it was done",
    ),
    "outcome_known": OutcomeKnown(task=TASK, epoch=EPOCH),
    "inquire": Inquire(task=TASK, epoch=EPOCH),
    "standing": Standing(task=TASK, epoch=LATER, known=True, remembered=17),
    "cfp": Cfp(**_TERMS, record=RECORD, reply_within_ms=400, within_ms=60_000, resumes=True),  # type: ignore[arg-type]
    "propose": Propose(**_TERMS, added_ms=41_200, load_ms=9, plan_version=6, because="12 m away", holds_result=True),  # type: ignore[arg-type]
    "refuse": Refuse(
        **_TERMS,  # type: ignore[arg-type]
        reason=Reason.STALE_BID,
        detail="the plan has changed",
        added_ms=0,
        load_ms=7,
        seen=LATER,
        duplicate_of=PARENT,
    ),
    "accept_proposal": AcceptProposal(
        task=TASK,
        epoch=LATER,
        record=RECORD,
        call_epoch=EPOCH,
        added_ms=41_200,
        load_ms=9,
        plan_version=6,
        lease_ms=2000,
        within_ms=0,
        checkpoint=b"",
        checkpoint_version=1,
    ),
    "reject_proposal": RejectProposal(task=TASK, epoch=EPOCH),
    "reject_proposal, two": Rejections(
        acts=(RejectProposal(task=TASK, epoch=EPOCH), RejectProposal(task=PARENT, epoch=LATER))
    ),
    "inform": Inform(task=TASK, epoch=EPOCH, result=b"\x81\xa5fault\xaaouter race"),
    "failure": Failure(task=TASK, epoch=EPOCH, reason=Reason.ERROR, detail="ValueError: no such row"),
    "cancel": Cancel(task=TASK, epoch=EPOCH, reason=Reason.OPERATOR, detail="not needed"),
    "not_understood": NotUnderstood(
        task=TASK, epoch=EPOCH, act=Performative.COMMIT, reason=Reason.ILLEGAL_NOW, detail="no such contract"
    ),
    "reserve": Reserve(task=TASK, epoch=EPOCH),
    "commit": Commit(task=TASK, epoch=EPOCH),
    "renew": Renew(task=TASK, epoch=EPOCH, boot=BOOT, sequence=300, progress_permille=800, note="walking"),
    "renewed": Renewed(task=TASK, epoch=EPOCH, boot=BOOT, sequence=300),
    "checkpoint": Checkpoint(task=TASK, epoch=EPOCH, version=2, state=b"\x93\x01\x02\x03"),
    "forfeit": Forfeit(
        task=TASK, epoch=EPOCH, reason=Reason.GIVEN_BACK, detail="battery", checkpoint=b"\xc0", checkpoint_version=3
    ),
    "cancelled": Cancelled(task=TASK, epoch=EPOCH, in_doubt=True),
    "adopt": Adopt(task=TASK, epoch=LATER, former=EPOCH),
    "pass_point_of_no_return": PassPointOfNoReturn(task=TASK, epoch=EPOCH),
    "point_of_no_return_recorded": PointOfNoReturnRecorded(task=TASK, epoch=EPOCH),
    "query_status": QueryStatus(task=TASK, epoch=EPOCH),
    "acknowledge": Acknowledge(task=TASK, epoch=EPOCH, act=Performative.CHECKPOINT, version=2),
    "profile": Profile(
        version=4,
        name="dog-1",
        roles=("dog",),
        kinds={"pump.check.v1": "CheckContact(site: str) -> Finding", "a.first": ""},
        capabilities=("legs",),
        battery_soc=0.64,
        position_m=(1.5, -2.0),
        queue=2,
        software="meshagent 0.1.0",
        visitor=False,
        listen_port=7340,
    ),
    "event": EventMessage(name="pump.anomaly", body=b"\x80"),
    "story_query": StoryQuery(query=9, task="check-7k2f"),
    "story_reply": StoryReply(query=9, task="check-7k2f", lines=b"\x90", truncated=True),
    "revocation_notice": RevocationNotice(lists=(b"one", b"two")),
    "membership": MembershipMessage(kind=3, body=b"\0\0\0\7"),
}
"""By what people call them; every field differs from its default."""


def vectors() -> dict[str, object]:
    """All of them, as JSON has them."""
    receiver = bytes(range(64, 96))
    message = SealedMessage(bytes(range(36)), receiver, 200, bytes(32) + b"\xff" * 32, b"payload")
    parts = [message_bytes(one, receiver) for one in (message, message._replace(to=BROADCAST, leaf_index=0, path=b""))]
    return {
        "about": "Hex throughout. protos/meshagent/wire/v1. Made by python -m tests.conformance.messages --write.",
        "payloads": [
            {"name": name, "type": kind, "payload": payload.hex()}
            for name, (kind, payload) in ((name, codec.encode(body)) for name, body in BODIES.items())
        ],
        "frames": [
            {"what": "an acknowledgement alone", "frame": frame_bytes(0, 41, b"", ()).hex()},
            {"what": "a hello", "frame": frame_bytes(0, 0, b"hello bytes", ()).hex()},
            {
                "what": "one message to the receiver (index 200, two siblings), one broadcast, window used up",
                "frame": frame_bytes(42, 41, b"", [(bytes(range(130)), parts)], True).hex(),
            },
        ],
    }


def render() -> str:
    """The file's content."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PATH.write_text(render())
    else:
        sys.stdout.write(render())
