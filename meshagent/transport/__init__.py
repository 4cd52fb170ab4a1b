"""Finding peers and keeping one authenticated pipe of frames to each: mDNS, mutual TLS, gRPC streams.

What the frames hold is wire's and identity's business; who is trusted beyond having proved a name, the node's.
"""

import os

# gRPC's core writes every refused handshake to stderr, in words of its library. The same facts, with their likely
# cause, are told by attempts.py; whoever wants the originals sets GRPC_VERBOSITY before starting.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
# Python's gRPC cannot be told a lowest TLS version, and this list of ciphers is read once, when it loads. It names one
# TLS 1.2 cipher for RSA keys; our leaves are ECDSA, so no 1.2 handshake can end well. TLS 1.3 ignores the list.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES128-GCM-SHA256"
