"""A server that sends made-up sums learns nothing from what clients say: not whether they open.

A few thousand such answers are the joint secret (SECURITY.md, "A malicious server").
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.flower.federation import NO_EVALUATION, NODES, Federation, assert_equal
from tests.fl.flower.joint_federation import JointFederation
from tests.fl.flower.local_grid import inflate
from tests.native import oracle

import quancrypt_native as qn
from quancrypt_fl.errors import FederatedError, MethodError
from quancrypt_fl.flower import server_round
from quancrypt_fl.flower.ledger import Ledger, Total
from quancrypt_fl.flower.protocol import blobs_of, read_reply
from quancrypt_fl.flower.requests import Writer
from quancrypt_fl.flower.server_round import _Work
from quancrypt_fl.flower.stores import FolderStore
from quancrypt_fl.joint.opened import OpenedSum
from quancrypt_fl.method.weighting import check_scale

Spoil = Callable[[qn.Parameters, bytes], bytes]


def noise(params: qn.Parameters, data: bytes) -> bytes:
    """A sum whose first half is random: it opens with probability zero, all but."""
    header, body = oracle.unframe(data)
    del header["body_bytes"]
    size = oracle.polynomial_bytes(params)
    rng = np.random.default_rng(1)
    c0 = np.array([rng.integers(0, p, params.poly_degree) for p in params.data_primes])
    return oracle.frame(1, header, oracle.pack_polynomial(params, c0) + body[size:])


def as_it_is(params: qn.Parameters, data: bytes) -> bytes:
    del params
    return data


def said(federation: Federation) -> list[tuple[Any, ...]]:
    """All that the server can see of replies, but times, metrics and ciphertexts' bytes."""
    found = []
    for exchange in federation.grid.exchanges:
        for message_id, contents in exchange.replies or []:
            reply = inflate(message_id, contents)
            if reply.has_error():
                found.append((exchange.node, exchange.asks, reply.error.reason))
                continue
            header = read_reply(reply).model_dump(
                exclude={"seconds", "training", "chain", "held", "loss", "key", "joint"}
            )
            sizes = {name: len(data) for name, data in blobs_of(reply).items()}
            metrics = sorted(
                name for each in reply.content.metric_records.values() for name in each
            )
            found.append((exchange.node, exchange.asks, header, sizes, metrics))
    return found


def lying(patch: pytest.MonkeyPatch, spoil: Spoil, *what: str) -> None:
    """A server whose sums of reports, or of updates, are others."""
    if "updates" in what:
        close = Ledger.close

        def closed(ledger: Ledger) -> Total:
            total = close(ledger)
            of_updates = len(ledger.layout) > 1
            data = spoil(ledger.params, total.data) if of_updates else total.data
            return Total(data, total.weight)

        patch.setattr(Ledger, "close", closed)
    if "reports" not in what:
        return
    real = _Work._sum_reports

    def summed(work: _Work, *rest: Any) -> tuple[Total, list[int]]:
        total, inside = real(work, *rest)
        return Total(spoil(work._r.params, total.data), total.weight), inside

    patch.setattr(_Work, "_sum_reports", summed)


@pytest.fixture(params=["shared", "joint"])
def either(
    request: pytest.FixtureRequest, tmp_path: Path, params: qn.Parameters, key_file: Path,
    joint_kit: Any, fast_disk: None,
) -> Callable[[str], Federation]:  # fmt: skip
    """A federation by its name, under either kind of key: both let a client open sums."""

    def make(name: str) -> Federation:
        if request.param == "shared":
            return Federation(params, key_file, tmp_path / name)
        return JointFederation.of(joint_kit, tmp_path / name)

    return make


@pytest.mark.parametrize("what", [["reports"], ["updates"], ["reports", "updates"]], ids=str)
def test_replies_do_not_tell_whether_a_sum_opens(
    either: Callable[[str], Federation], what: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    heard = {}
    for name, spoil in {"opens": as_it_is, "does not": noise}.items():
        federation = either(name)
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
            lying(patch, spoil, *what)
            federation.train(2, snapshot_every=1, **NO_EVALUATION)
        heard[name] = said(federation)
        told = [text for text in caplog.messages if "does not open, and the model stays" in text]
        assert bool(told) == (name == "does not")  # the client's own log does tell
        assert federation.watcher.refusals == []
        assert federation.failed == {}
    assert heard["opens"] == heard["does not"]


@pytest.mark.parametrize("spoil", [as_it_is, noise])
@pytest.mark.parametrize("what", ["weight", "tensors"])
def test_what_is_public_is_refused_alike(
    either: Callable[[str], Federation], spoil: Spoil, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong weight or layout is refused before the sum is opened, so that it is no oracle."""
    federation = either("one")
    lying(monkeypatch, spoil, "reports")
    if what == "weight":
        real = Writer.message

        def heavier(writer: Writer, node: int, known: Any, step: Any, **rest: Any) -> Any:
            if step.reports is not None:
                step = replace(step, reports_weight=step.reports_weight + 1)
            return real(writer, node, known, step, **rest)

        monkeypatch.setattr(Writer, "message", heavier)
    else:
        opened = _Work._opened

        def other(work: _Work, collect: Any, nodes: list[int], name: str) -> Any:
            """The reports that clients get are of another tensor."""
            total, inside = opened(work, collect, nodes, name)
            data = total.data.replace(b"quancrypt.mean_magnitudes", b"quancrypt.mean_magnitudez")
            return (
                (Total(resealed(data), total.weight), inside)
                if name == "reports"
                else (total, inside)
            )

        monkeypatch.setattr(_Work, "_opened", other)
    with pytest.raises(FederatedError, match="no round succeeded"):
        federation.train(1, **NO_EVALUATION)
    expected = {
        "weight": "the sum of reports has the weight",
        "tensors": "the sum of reports is not of the tensors",
    }[what]
    for node in NODES:
        assert any(expected in reason for reason in federation.watcher.reasons(node))


def resealed(data: bytes) -> bytes:
    """The frame in these bytes with its checksum right again; it may stand in an opened sum."""
    if data.startswith(b"QCOS"):
        opened = OpenedSum.from_bytes(data)
        return OpenedSum(resealed(opened.total), opened.parts).to_bytes()
    header, body = oracle.unframe(data)
    del header["body_bytes"]
    return oracle.frame(1, header, body)


def test_the_training_goes_on_without_the_reports(
    either: Callable[[str], Federation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round changes no weight, sets the bounds of the next, and carries updates over."""
    federation = either("one")
    lying(monkeypatch, noise, "reports")
    federation.train(1, error_feedback=True, **NO_EVALUATION)
    first = federation.held(NODES[0])
    for node in NODES:
        held = federation.held(node)
        assert held.state.bounds == first.state.bounds
        assert_equal(dict(held.state.weights), dict(first.state.weights))
        folder = federation.state_of(node)
        training = next(path.parent.name for path in folder.glob("*/held"))
        with FolderStore(folder, training) as store:
            residual = store.memory().residual
        assert all(np.any(tensor) for tensor in residual.values())
    assert first.state.bounds
    assert all(bound > 2.0**-31 for bound in first.state.bounds.values())


# --- scales ---


@pytest.mark.parametrize(
    ("weighting", "scale"),
    [("integer", 1.0), ("uniform", 1.0), ("prescaled", 0.001), ("prescaled", 64.0)],
)
def test_scales_that_sample_counts_lead_to(weighting: str, scale: float) -> None:
    check_scale(weighting, scale, 64)


@pytest.mark.parametrize(
    ("weighting", "scale"),
    [("integer", 2.0), ("uniform", 0.5), ("prescaled", 64.1), ("prescaled", 0.0)],
)
def test_scales_that_none_do(weighting: str, scale: float) -> None:
    with pytest.raises(MethodError, match=f"a scale of {scale:g} with {weighting} weighting"):
        check_scale(weighting, scale, 64)


@pytest.mark.parametrize(("weighting", "scale"), [("integer", 1e6), ("prescaled", 1e6)])
def test_a_server_that_magnifies_an_update(
    joint_federation: JointFederation, monkeypatch: pytest.MonkeyPatch, weighting: str, scale: float
) -> None:
    """To learn from "training diverged" how large it is."""
    real = server_round._Work._shares

    def shares(work: _Work, nodes: list[int]) -> Any:
        found = real(work, nodes)
        return found | {NODES[0]: replace(found[NODES[0]], scale=scale)}

    monkeypatch.setattr(_Work, "_shares", shares)
    joint_federation.train(1, weighting=weighting, **NO_EVALUATION)
    reasons = joint_federation.watcher.reasons(NODES[0])
    assert any(f"a scale of 1e+06 with {weighting} weighting" in reason for reason in reasons)
    assert joint_federation.last.records[0]["participants"] == 4
