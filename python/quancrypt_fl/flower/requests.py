"""From what a training has agreed on, and what a node holds, to the next message for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from numpy.typing import NDArray

import quancrypt_native as qn
from quancrypt_fl.flower.history import CatchUp, History, HistoryDamageError, StoredBytes
from quancrypt_fl.flower.nodes import Node
from quancrypt_fl.flower.protocol import (
    CONSTANTS,
    Ask,
    Joint,
    Link,
    Opening,
    RegionTask,
    Request,
    write,
)
from quancrypt_fl.method.agreement import Agreement

__all__ = ["Step", "Writer"]


@dataclass(frozen=True)
class Step:
    """What a message asks for.

    Attributes
    ----------
    asks
        See :data:`~quancrypt_fl.flower.protocol.ASKS`; none to evaluate.
    config
        The user's ConfigRecord, which the app sees.
    scale
        The client's scale before clipping.
    reports, reports_weight
        Sum of the reports, for an upload that needs bounds.
    opening
        What to open, where ``open`` is asked for.
    blobs
        Further bytes by name: what other parties sent, or the sum to be opened.
    """

    asks: tuple[Ask, ...]
    config: ConfigRecord
    scale: float = 1.0
    reports: bytes | None = None
    reports_weight: int = 0
    opening: Opening | None = None
    blobs: Mapping[str, bytes] = field(default_factory=dict)


class Writer:
    """Writes a training's messages.

    Parameters
    ----------
    history
        The server's memory of the training.
    params, agreement
        What the parties agreed on.
    model
        The initial model, all tensors in order.
    arrays_key, config_key, count_key
        Keys of the user's records, as Flower's FedAvg has them.
    regions
        Nodes that are regions, with the largest weight of the sum of each.
    key_id
        Fingerprint of the clients' key, if it is known beforehand.
    ceremony
        Fingerprint of the joint key's ceremony, where there is one.

    Attributes
    ----------
    joint_key
        Fingerprint of the joint key, once it is made.
    """

    def __init__(
        self,
        history: History,
        params: qn.Parameters,
        agreement: Agreement,
        model: Mapping[str, NDArray[Any]],
        *,
        arrays_key: str,
        config_key: str,
        count_key: str,
        regions: Mapping[int, int] | None = None,
        key_id: str | None = None,
        ceremony: str | None = None,
    ) -> None:
        self._history = history
        self._params = params.to_bytes()
        self._agreement = agreement
        self._names = tuple(model)
        self._floats = {
            name: str(tensor.dtype) for name, tensor in model.items() if tensor.dtype.kind == "f"
        }
        shapes = {name: model[name].shape for name in self._floats}
        self._regions = {
            node: RegionTask(shapes=shapes, most=most) for node, most in (regions or {}).items()
        }
        self._constants = ArrayRecord(
            {name: Array(tensor) for name, tensor in model.items() if name not in self._floats}
        )
        self._initial = ArrayRecord({name: Array(tensor) for name, tensor in model.items()})
        self._arrays_key = arrays_key
        self._config_key = config_key
        self._count_key = count_key
        self._key_id = key_id
        self._ceremony = ceremony
        self.joint_key: str | None = None
        self._last: dict[int, bytes] = {}
        self.snapshot_sent: dict[int, int] = {}
        """Rounds finished of the snapshot that was last sent to a node, by node."""

    def message(self, node: int, known: Node, step: Step, *, since: int | None) -> Message:
        """The message for a node.

        Parameters
        ----------
        since
            Rounds finished of the state that the node holds; None if it has to begin anew.
        """
        path, blobs = self._way(since)
        self.snapshot_sent.pop(node, None)
        if path.snapshot is not None:
            self.snapshot_sent[node] = path.snapshot[0]
        blobs["params"] = self._params
        if step.reports is not None:
            blobs["reports"] = step.reports
        blobs |= step.blobs
        content = RecordDict({self._config_key: step.config, CONSTANTS: self._constants})
        if path.initial:
            content[self._arrays_key] = self._initial
        request = Request(
            training=self._history.training,
            round=self._history.finished,
            chain=self._history.chain,
            asks=step.asks,
            agreement=self._agreement,
            names=self._names,
            floats=self._floats,
            links=tuple(_link(path, known)),
            snapshot=None if path.snapshot is None else (path.snapshot[0], path.snapshot[1]),
            counted=None if path.snapshot is None else self._counted(known),
            initial=path.initial,
            scale=step.scale,
            reports_weight=step.reports_weight,
            arrays_key=self._arrays_key,
            count_key=self._count_key,
            region=self._regions.get(node),
            key=self._key_id,
            joint=self._joint(),
            opening=step.opening,
        )
        kind = MessageType.TRAIN if step.asks else MessageType.EVALUATE
        return Message(write(request, blobs, content), node, kind, group_id=self._group())

    def _joint(self) -> Joint | None:
        if self._ceremony is None:
            return None
        return Joint(ceremony=self._ceremony, key=self.joint_key)

    def _counted(self, known: Node) -> tuple[int, str] | None:
        """The state from which a node trained its last update that is in a sum."""
        chain = None if known.counted is None else self._history.chain_at(known.counted)
        return None if known.counted is None or chain is None else (known.counted, chain)

    def _group(self) -> str:
        return str(self._history.finished + 1)

    def _way(self, since: int | None) -> tuple[CatchUp, dict[str, bytes]]:
        """How to catch up, and the bytes of it; another way where a file is found damaged."""
        while True:
            path = self._history.catch_up(since)
            blobs: dict[str, bytes] = {}
            if path.snapshot is not None:
                try:
                    blobs["snapshot"] = path.snapshot[2].load()
                except HistoryDamageError:
                    self._history.drop_snapshot(path.snapshot[0])
                    continue
            for link, stored in path.sums:
                if stored is None:
                    continue
                try:
                    blobs[f"sum-{link.round}"] = self._bytes(link.round, stored)
                except HistoryDamageError:
                    self._history.drop_sum(link.round)
                    break
            else:
                return path, blobs

    def _bytes(self, round: int, stored: StoredBytes) -> bytes:
        """The last sum goes to every node: it is read once."""
        if round == self._history.finished - 1:
            if round not in self._last:
                self._last = {round: stored.load()}
            return self._last[round]
        return stored.load()


def _link(path: CatchUp, known: Node) -> Sequence[Link]:
    return [
        Link(
            round=each.round,
            weight=each.weight,
            scale=float(each.scale),
            digest=each.digest,
            counted=known.counted == each.round,
        )
        for each, _ in path.sums
    ]
