"""Tells the SuperLink that a SuperNode is gone, in the place of one that was killed.

The SuperLink takes a node for connected until a minute after its last heartbeat: so long it keeps
its tasks waiting, and lets no other process connect with the node's key. With that key, and for the
node that belongs to it alone, the node can be signed off at once.

``python -m quancrypt_fl.flower.release --superlink HOST:PORT --root-certificates FILE --key FILE
--node NUMBER``; the exit status is 0 if the node is signed off.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Sign a node off; the exit status."""
    parser = argparse.ArgumentParser(prog="release")
    for name in ("superlink", "root-certificates", "key"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--node", required=True, type=int)
    options = parser.parse_args(arguments)

    import httpx
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key
    from flwr.proto.fleet_pb2 import DeactivateNodeRequest
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    key = load_ssh_private_key(Path(options.key).read_bytes(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        return 2
    with FleetHttpClient.from_server_address(
        options.superlink,
        insecure=False,
        root_certificates=options.root_certificates,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
        ],
    ) as client:
        try:
            client.DeactivateNode(DeactivateNodeRequest(node_id=options.node))
        except httpx.HTTPError:
            return 1  # signed off already, or the SuperLink is away
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
