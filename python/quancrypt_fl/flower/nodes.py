"""What the server remembers of each node: public facts, and none of its updates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from quancrypt_fl.flower.protocol import Reply

__all__ = ["Node", "NodeBook", "printable"]


@dataclass
class Node:
    """One node.

    Attributes
    ----------
    name
        What it calls itself; its number until it has said so.
    samples
        Training samples of its last training, or None.
    held
        Rounds finished and chain id of the state that it said it holds, or None.
    counted
        The last round, from 0, whose sum contains its update, or None.
    party
        Index of its party, where there is a joint key and it has said so.
    """

    name: str = ""
    samples: int | None = None
    held: tuple[int, str] | None = None
    counted: int | None = None
    party: int | None = None


@dataclass
class NodeBook:
    """All nodes that have answered.

    Attributes
    ----------
    key_id
        Fingerprint of the key that the clients share: given, or that of most of them.
    """

    key_id: str | None = None
    nodes: dict[int, Node] = field(default_factory=dict)

    def __getitem__(self, node: int) -> Node:
        return self.nodes.setdefault(node, Node())

    def name(self, node: int) -> str:
        """The node's name, for people."""
        known = self.nodes.get(node)
        return known.name if known and known.name else f"node {node}"

    def note(self, node: int, reply: Reply) -> None:
        """Note what a reply says of its sender."""
        entry = self[node]
        name = printable(reply.name)
        taken = any(name == other.name for key, other in self.nodes.items() if key != node)
        entry.name = f"{name} (node {node})" if name and (taken or "(node" in name) else name
        entry.held = reply.held
        if reply.samples:
            entry.samples = reply.samples
        if reply.party is not None:
            entry.party = reply.party

    def count(self, record: Mapping[str, Any]) -> None:
        """Note whose updates are in the sum of a round, from its record."""
        for client in record["clients"]:
            if client["weight"]:
                self[int(client["node"])].counted = record["round"] - 1

    def settle_key(self, keys: Mapping[int, str]) -> set[int]:
        """Decide on the key, if none is given: that of most nodes.

        Returns
        -------
        set of int
            Nodes with another key.
        """
        if self.key_id is None and keys:
            self.key_id = _most_common(keys.values())
        return {node for node, key in keys.items() if key != self.key_id}

    def to_document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "key_id": self.key_id,
            "nodes": {str(node): asdict(entry) for node, entry in self.nodes.items()},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> NodeBook:
        """From :meth:`to_document`'s."""
        nodes = {}
        for node, entry in document["nodes"].items():
            held = entry["held"]
            nodes[int(node)] = Node(
                entry["name"],
                entry["samples"],
                tuple(held) if held else None,
                entry["counted"],
                entry.get("party"),
            )
        return cls(document["key_id"], nodes)


def printable(text: str) -> str:
    """A stranger's text for a log: one line, without characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _most_common(keys: Iterable[str]) -> str:
    """The most frequent one; the first in order where several are."""
    counts = Counter(keys)
    return min(counts, key=lambda key: (-counts[key], key))
