"""Which request asks for what: one table that server and client of the local API share.

Handlers are generic on purpose: the code that grpc_tools writes beside the messages insists on the grpcio that
generated it, and this table is all that it would add.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from meshagent.wire.v1 import operator_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Operator"].full_name
NEXT_METADATA: Final = "meshagent-next-bin"
"""The line to type next, UTF-8; binary because metadata is ASCII otherwise."""
EXIT_METADATA: Final = "meshagent-exit"
MAX_DOCUMENT_BYTES: Final = 16 * 1024 * 1024
"""10,000 tasks at about 400 bytes each, four times over. The socket belongs to one user, who is trusted."""


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc of the service."""

    name: str
    request: type[Message]
    streams: bool

    @property
    def path(self) -> str:
        """As it stands in HTTP/2's `:path`."""
        return f"/{SERVICE}/{self.name}"


METHODS: Final[dict[type[Message], Method]] = {
    request: Method(name, request, streams)
    for name, request, streams in (
        ("Status", pb.StatusRequest, False),
        ("Peers", pb.PeersRequest, False),
        ("Tasks", pb.TasksRequest, False),
        ("Watch", pb.WatchRequest, True),
        ("Why", pb.WhyRequest, False),
        ("Cancel", pb.CancelRequest, False),
        ("Resolve", pb.ResolveRequest, False),
        ("Submit", pb.SubmitRequest, True),
        ("Complete", pb.CompleteRequest, False),
        ("Facts", pb.FactsRequest, False),
        ("Spread", pb.SpreadRequest, False),
        ("Renew", pb.RenewRequest, False),
        ("Shutdown", pb.ShutdownRequest, False),
    )
}
