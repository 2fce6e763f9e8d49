"""Keys by which SuperNodes prove to the SuperLink who they are: as Flower's own tools make them."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["NodeKeys", "make_node_keys"]


@dataclass(frozen=True)
class NodeKeys:
    """A key pair in OpenSSH's formats."""

    private: bytes
    """Secret: for ``flower-supernode --auth-supernode-private-key``."""
    public: bytes
    """For ``flwr supernode register``: one line, which ends in the site's name."""


def make_node_keys(name: str) -> NodeKeys:
    """A fresh pair on P-384, the curve that Flower recommends."""
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return NodeKeys(private, public + b" " + name.encode() + b"\n")
