"""Finding peers and keeping one authenticated pipe of frames to each: mDNS, mutual TLS, gRPC streams.

What the frames hold is wire's and identity's business; who is trusted beyond having proved a name, the node's.
"""

import os

# gRPC's core writes every refused handshake to stderr, in words of its library. The same facts, with their likely
# cause, are told by attempts.py; whoever wants the originals sets GRPC_VERBOSITY before starting.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
