"""A round as the server sees it: who is asked, what arrives, and what becomes of it.

Steady state is one exchange per round: clients train and upload, and uploads are added as they
arrive. Where clip bounds are still to be agreed on, or a client's sample count is unknown, training
and upload are two exchanges; nobody trains twice for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

import quancrypt_native as qn
from quancrypt_fl.errors import MethodError, NotOpenedError
from quancrypt_fl.flower.exchanges import Exchanges
from quancrypt_fl.flower.history import History
from quancrypt_fl.flower.ledger import Ledger, Total, largest_upload
from quancrypt_fl.flower.nodes import NodeBook
from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.opening import Collect, JointKey, Opener
from quancrypt_fl.flower.outcome import Answer, Outcome
from quancrypt_fl.flower.protocol import Ask, Reply, blobs_of
from quancrypt_fl.flower.requests import Step
from quancrypt_fl.flower.same_sum import SameSum
from quancrypt_fl.flower.snapshot_prefix import says_of_itself
from quancrypt_fl.method.agreement import Agreement
from quancrypt_fl.method.quancrypt import Layout, QuanCrypt
from quancrypt_fl.method.rounds import arrivals_scale
from quancrypt_fl.method.weighting import Share

__all__ = ["ServerRound", "TooFewError", "averaged", "metrics_of"]

Shapes = Mapping[str, tuple[int, ...]]

_SNAPSHOT_BYTES, _TENSOR_BYTES = 2**16, 512  # of a snapshot, beside its values


class TooFewError(MethodError):
    """Too few clients have answered: the round ends without a sum."""


class LedgerError(MethodError):
    """The sum is not what its ledger says: the round ends without one."""


@dataclass
class ServerRound:
    """Runs rounds; what differs from one to the next is in the arguments.

    Attributes
    ----------
    shapes
        Shapes of the tensors that are summed.
    min_arrivals
        Uploads below which the sum is thrown away unopened.
    key_id
        Fingerprint of the clients' key, where it was given.
    regions
        Nodes that send sums, with the largest weight of each.
    joint
        The joint key, where nobody has the key of updates.
    evaluation_seconds
        Of the last evaluation: each node's seconds by phase. It opens the sum of the round before.
    """

    history: History
    book: NodeBook
    exchanges: Exchanges
    observer: RunObserver
    params: qn.Parameters
    agreement: Agreement
    shapes: Shapes
    min_arrivals: int
    count_key: str
    key_id: str | None = None
    regions: Mapping[int, int] = field(default_factory=dict)
    joint: JointKey | None = None
    evaluation_seconds: dict[int, dict[str, float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.method: QuanCrypt = self.agreement.method(self.shapes)

    @property
    def has_summed(self) -> bool:
        """Whether a round has had a sum."""
        return any(each.weight for each in self.history.rounds)

    def has_bounds(self, t: int) -> bool:
        """Whether clients know clip bounds for all that travels in round ``t``: from sums of it."""
        turns, names = max(1, len(self.method.turns)), self.shapes
        summed = {each.round % turns for each in self.history.rounds if each.weight}
        known = {name for turn in summed for name in self.method.travelling(names, turn)}
        return known.issuperset(self.method.travelling(names, t))

    def run(
        self, nodes: Sequence[int], config: ConfigRecord, *, snapshot_from: int | None = None
    ) -> Outcome:
        """One round with these nodes.

        Parameters
        ----------
        snapshot_from
            A node that seals its global state along with its upload.
        """
        out = Outcome()
        work = _Work(self, out, config, snapshot_from)
        try:
            work.train_and_upload(list(nodes))
        except (TooFewError, LedgerError, NotOpenedError) as error:
            out.total, out.failed = None, str(error)
            if not self.has_summed:
                self.book.key_id = self.key_id  # no sum has confirmed the majority's yet
        return out

    def evaluate(self, nodes: Sequence[int], config: ConfigRecord) -> dict[int, MetricRecord]:
        """Have the model after the last round evaluated; metrics by node."""
        metrics: dict[int, MetricRecord] = {}
        self.evaluation_seconds = {}

        def accept(node: int, reply: Reply, message: Message, asks: Sequence[Ask]) -> None:
            del asks
            metrics[node] = metrics_of(message, self.count_key)
            self.evaluation_seconds[node] = {str(n): s for n, s in reply.seconds.items()}

        self.exchanges.run(
            nodes,
            lambda _: Step((), config),
            accept,
            round=self.history.finished,
            phase="evaluate",
        )
        return metrics

    def finish(self, nodes: Sequence[int], config: ConfigRecord) -> bytes | None:
        """Have every node keep the final model, and one of them seal it; the sealed bytes.

        The first node that answers seals it, so that one that hangs delays nobody else.
        """
        sealed: list[bytes] = []

        def accept(node: int, reply: Reply, message: Message, asks: Sequence[Ask]) -> None:
            del node, reply
            if "snapshot" in asks:
                sealed.append(self.checked_snapshot(blobs_of(message)))

        def ask(some: Sequence[int], *asks: Ask) -> set[int]:
            return self.exchanges.run(
                some,
                lambda _: Step(asks, config),
                accept,
                round=self.history.finished,
                phase="finish",
            )

        there = ask(nodes, "finish")
        for node in sorted(there):
            ask([node], "snapshot")
            if sealed:
                return sealed[0]
        return None

    def checked_snapshot(self, blobs: Mapping[str, bytes]) -> bytes:
        """A sealed state as far as the server can check it: of which model, and how long."""
        data, history = blobs.get("snapshot", b""), self.history
        values = sum(math.prod(shape) for shape in self.shapes.values())
        limit = 4 * values + _SNAPSHOT_BYTES + sum(_TENSOR_BYTES + 12 * len(n) for n in self.shapes)
        if len(data) > limit:
            raise MethodError(f"a snapshot of {len(data):,} bytes; allowed: {limit:,}")
        said = says_of_itself(data)
        if said != (history.training, history.finished, history.chain):
            raise MethodError(f"its snapshot is of another model (after {said[1]} rounds)")
        return data


class _Work:
    """One round at work."""

    def __init__(
        self, around: ServerRound, out: Outcome, config: ConfigRecord, snapshot_from: int | None
    ) -> None:
        self._r = around
        self._out = out
        self._config = config
        self._snapshot_from = snapshot_from
        self._t = around.history.finished
        self._keys: dict[int, str] = {}
        self._reports: dict[int, bytes] = {}
        self._parts: dict[int, int] = {}  # clients of a region that did the last step
        self._largest = 0
        self._sum: SameSum | None = None  # that uploads are added to
        self._opener: Opener | None = None
        if around.joint is not None:
            self._opener = Opener(around.exchanges, around.joint, config)

    def train_and_upload(self, nodes: list[int]) -> None:
        r, weighting = self._r, self._r.agreement.weighting
        no_bounds = not r.has_bounds(self._t)
        no_counts = weighting != "uniform" and any(r.book[n].samples is None for n in nodes)
        if not (no_bounds or no_counts or r.book.key_id is None):
            self._upload(nodes, ("train", "upload"), self._shares(nodes))
            return
        early = no_bounds and weighting != "prescaled"  # else a report depends on the shares
        nodes = self._ask(nodes, ("train", "report") if early else ("train",))
        strangers = r.book.settle_key({node: self._keys[node] for node in nodes})
        for node in sorted(strangers):
            reason = f"its key is {self._keys[node]}, that of the others {r.book.key_id}"
            self._refuse(node, "train", reason)
        nodes = [node for node in nodes if node not in strangers]
        self._check_number(nodes, "trained")
        shares = self._shares(nodes)
        reports: Total | None = None
        if no_bounds:
            if not early:
                nodes = self._ask(nodes, ("report",), shares)
            reports, nodes = self._agree(nodes, shares)
        self._upload(nodes, ("upload",), shares, reports)

    def _agree(self, nodes: list[int], shares: Mapping[int, Share]) -> tuple[Total, list[int]]:
        """The sum of the reports, and the nodes that are in it: the others are out of the round."""
        layout = self._r.method.at(self._t).report_layout()
        with self._same_sum(layout, shares) as reports:

            def collect(nodes: list[int], attempt: int) -> tuple[Total, list[int]]:
                if attempt:
                    nodes = self._ask(nodes, ("report",), shares, again=True)
                    reports.begin_again()
                return self._sum_reports(nodes, reports)

            total, nodes = self._opened(collect, nodes, "reports")
        self._out.reports = total
        self._out.download_bytes += len(total.data)
        return total, nodes

    def _same_sum(self, layout: Layout, shares: Mapping[int, Share]) -> SameSum:
        r = self._r
        return SameSum(
            lambda: Ledger(r.params, self._key_id(), layout, shares, r.regions),
            repeats=self._opener is not None,
        )

    def _shares(self, nodes: list[int]) -> dict[int, Share]:
        counts = [self._r.book[node].samples or 1 for node in nodes]
        return dict(zip(nodes, self._r.agreement.shares(counts), strict=True))

    def _sum_reports(self, nodes: list[int], reports: SameSum) -> tuple[Total, list[int]]:
        for node in nodes:
            try:
                with self._aggregating():
                    reports.add(node, self._reports[node], self._parts.get(node, 1))
            except (MethodError, qn.QuanCryptError) as error:
                self._refuse(node, "report", str(error))
        inside = reports.complete()
        self._check_number(inside, "reported")
        total = self._closed(reports.ledger)
        self._out.upload_bytes += max(len(data) for data in self._reports.values())
        self._out.ciphertexts += reports.ledger.ciphertexts
        self._reports.clear()
        return total, inside

    def _upload(
        self,
        nodes: list[int],
        asks: tuple[Ask, ...],
        shares: Mapping[int, Share],
        reports: Total | None = None,
    ) -> None:
        r, out = self._r, self._out
        with self._same_sum(r.method.upload_layout(r.shapes, self._t), shares) as updates:
            self._sum = updates

            def collect(nodes: list[int], attempt: int) -> tuple[Total, list[int]]:
                if attempt:
                    updates.begin_again()
                self._ask(
                    nodes, ("upload",) if attempt else asks, shares, reports, again=attempt > 0
                )
                inside = updates.complete()
                self._check_number(inside, "uploaded")
                out.ledger = updates.ledger
                out.scale = arrivals_scale(out.ledger.arrived, len(shares))
                out.ciphertexts += out.ledger.ciphertexts
                out.upload_bytes += self._largest
                return self._closed(out.ledger), inside

            out.total, _ = self._opened(collect, nodes, "updates")

    def _opened(self, collect: Collect, nodes: list[int], what: str) -> tuple[Total, list[int]]:
        """The sum that clients can open, and the nodes that are in it."""
        if self._opener is None:
            return collect(nodes, 0)
        try:
            return self._opener.opened(collect, nodes, what)
        finally:
            self._out.opener = self._opener

    def _key_id(self) -> str:
        """The key of updates: that which all clients have, or the joint one."""
        r = self._r
        if r.joint is not None:
            return r.joint.key_id
        assert r.book.key_id is not None
        return r.book.key_id

    def _ask(
        self,
        nodes: list[int],
        asks: tuple[Ask, ...],
        shares: Mapping[int, Share] | None = None,
        reports: Total | None = None,
        *,
        again: bool = False,
    ) -> list[int]:
        """One exchange; the nodes that did all of it, in order."""
        phase = "train+upload" if asks == ("train", "upload") else asks[0]

        def step(node: int) -> Step:
            own = asks
            if "upload" in asks and node == self._snapshot_from and self._out.snapshot is None:
                own = (*asks, "snapshot")
            return Step(
                own,
                self._config,
                shares[node].scale if shares else 1.0,
                None if reports is None else reports.data,
                0 if reports is None else reports.weight,
            )

        did = self._r.exchanges.run(
            nodes,
            step,
            self._accept,
            round=self._t + 1,
            phase=phase,
            again=asks if again else (),
        )
        if not again:  # else earlier uploads stand in for those who did not answer
            self._check_number(list(did), f"answered ({phase})")
        return [node for node in nodes if node in did]

    def _accept(self, node: int, reply: Reply, message: Message, asks: Sequence[Ask]) -> None:
        out, blobs = self._out, blobs_of(message)
        self._keys[node] = reply.key
        metrics = metrics_of(message, self._r.count_key) if "train" in asks else MetricRecord()
        snapshot = self._r.checked_snapshot(blobs) if "snapshot" in asks else None
        if "report" in asks:
            report = blobs.get("report", b"")
            layout, is_sum = self._r.method.at(self._t).report_layout(), node in self._r.regions
            limit = largest_upload(self._r.params, layout, is_sum=is_sum)
            if not 0 < len(report) <= limit:
                raise MethodError(f"a report of {len(report):,} bytes; allowed: 1 to {limit:,}")
            self._reports[node] = report
        if "upload" in asks:
            assert self._sum is not None
            upload = blobs.get("upload", b"")
            with self._aggregating():
                self._sum.add(node, upload, reply.parts)
            self._largest = max(self._largest, len(upload))
        if node in self._r.regions:
            self._parts[node] = reply.parts
        out.snapshot = snapshot or out.snapshot
        if "train" in asks:
            out.answers[node] = Answer(reply, metrics)
        spent = out.client_seconds.setdefault(node, {})
        for name, seconds in reply.seconds.items():
            spent[name] = spent.get(name, 0.0) + seconds

    def _closed(self, ledger: Ledger) -> Total:
        with self._aggregating():
            try:
                return ledger.close()
            except (MethodError, qn.QuanCryptError) as error:
                raise LedgerError(str(error)) from error

    def _refuse(self, node: int, phase: str, reason: str) -> None:
        self._r.observer.refused(
            round=self._t + 1, phase=phase, node=node, name=self._r.book.name(node), reason=reason
        )

    def _check_number(self, nodes: list[int], what: str) -> None:
        clients = sum(self._parts.get(node, 1) for node in nodes)
        if clients < self._r.min_arrivals:
            raise TooFewError(f"{clients} clients {what}; allowed: {self._r.min_arrivals} or more")

    @contextmanager
    def _aggregating(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._out.seconds += time.perf_counter() - start


def metrics_of(message: Message, count_key: str) -> MetricRecord:
    """A reply's metrics, checked so far that an average of them can be formed."""
    records = list(message.content.metric_records.values())
    if len(records) != 1:
        raise MethodError(f"it holds {len(records)} MetricRecords; allowed: one")
    count: Any = records[0].get(count_key)
    if isinstance(count, list) or not isinstance(count, int | float) or not 0 < count < 2**53:
        raise MethodError(f"its metric {count_key!r} is {count!r:.60}; allowed: a positive number")
    return records[0]


def averaged(
    metrics: Mapping[int, MetricRecord],
    average: Callable[[list[RecordDict], str], MetricRecord],
    count_key: str,
) -> MetricRecord | None:
    """The average of metrics, over those whose names agree with most of the others'."""
    groups: dict[tuple[str, ...], list[RecordDict]] = {}
    for record in metrics.values():
        if not np.isfinite([x for value in record.values() for x in np.ravel(value)]).all():
            continue  # one NaN would be all that is left of an average
        shape = tuple(
            f"{name}[{len(value)}]" if isinstance(value, list) else name
            for name, value in sorted(record.items())
        )
        groups.setdefault(shape, []).append(RecordDict({"metrics": record}))
    if not groups:
        return None
    return average(max(groups.values(), key=len), count_key)
