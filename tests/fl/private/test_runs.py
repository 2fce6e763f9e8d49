"""Whole runs with noise under encryption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("dp_accounting", reason="needs the [privacy] extra")
pytest.importorskip("opendp", reason="needs the [privacy] extra")

from tests.fl.reference import recorded
from tests.fl.test_rounds import compare_with_plain

import quancrypt_native as qn
from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.engines import privacy
from quancrypt_fl.errors import CheckpointError, MethodError
from quancrypt_fl.method.statistics import STATISTICS
from quancrypt_fl.observer import Observer
from quancrypt_fl.private.accounting import design
from quancrypt_fl.receipts import receipt_lines
from quancrypt_fl.report.receipts import parse_receipt

TinyConfig = Callable[..., QuanCryptConfig]
NOISE: dict[str, Any] = {
    "dp": "discrete-gaussian", "bits": 12, "dp_epsilon": 50.0, "max_train_samples": 200,
    "max_test_samples": 50,
}  # fmt: skip


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of NumPy's in place of the system's, the same in every run."""

    def gaussian(scale: float) -> Callable[[int], NDArray[np.int64]]:
        source = np.random.default_rng(1)
        return lambda size: np.rint(source.normal(0, scale, size)).astype(np.int64)

    monkeypatch.setattr(privacy, "discrete_gaussian", gaussian)


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"mask": "client", "smoothing": 0.5, "prune_global": True},
        {"dropout": 0.3, "dp_missing": 0.5, "participation": 0.75},
        {"clients": 6, "aggregation": "median-of-groups", "groups": 3},
    ],
    ids=str,
)
def test_a_round_is_the_same_without_encryption(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    with_encryption, without = compare_with_plain(tiny(**NOISE, **choices))
    assert with_encryption["privacy"] == without["privacy"]


def test_what_is_said(tiny: TinyConfig) -> None:
    """The guarantee in results, receipt, rounds, the table and the report."""
    results = Simulation(tiny(**NOISE)).run()
    claim = results["privacy"]
    assert claim == results["receipt"]["privacy"]
    assert results["receipt"]["protected"] is True
    assert "reports" not in results["receipt"]
    assert "reports" not in results["receipt"]["keys"][0]
    mechanism = design(
        epsilon=50.0, delta=1e-5, rounds=3, parties=4, shares=4, values=claim["values"], bits=12,
        clip=1.0,
    )  # fmt: skip
    assert claim["epsilon"] == mechanism.spent(3) == pytest.approx(50.0, rel=1e-4)
    spent = [record["privacy"]["epsilon"] for record in results["rounds"]]
    assert spent == [mechanism.spent(rounds) for rounds in (1, 2, 3)]
    assert spent == sorted(spent)
    said = dict(receipt_lines(results["receipt"]))["Privacy"]
    assert said.startswith("ε = 50.00 at δ = 1e-05 after 3 rounds, for one client's updates")
    assert "fewer than 4 clients is opened" in said
    assert ("Privacy", said) in parse_receipt(results["receipt"]).facts


def test_every_value_of_every_round_is_accounted_for(tiny: TinyConfig) -> None:
    """Turns move from round to round, and with them how much is sent."""
    simulation = Simulation(tiny(**NOISE, p_0=0.37, p_target=0.9, t_eff=0, t_target=3))
    sent = []
    method = simulation._parties.method
    for t in range(3):
        masks = method.masks(replace(simulation.state, round=t))
        sent.append(sum(mask.size for mask in masks.values()))
    assert len(set(sent)) > 1
    assert simulation.run()["privacy"]["values"] == max(sent)
    own = Simulation(tiny(**NOISE, mask="client", rounds=1)).run()
    assert own["privacy"]["values"] == own["totals"]["parameters"]


def test_noise_is_the_systems_and_differs(tiny: TinyConfig) -> None:
    one, two = (recorded(tiny(**NOISE, rounds=1))[2].states[0].weights for _ in range(2))
    assert any((one[name] != two[name]).any() for name in one)


@pytest.mark.usefixtures("seeded")
def test_nothing_but_the_update_is_sent(tiny: TinyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """No statistics, no reports, the same bound for all tensors."""
    calls: list[tuple[dict[str, NDArray[np.float32]], dict[str, float]]] = []
    encrypt = qn.Encryptor.encrypt

    def spy(self: Any, tensors: Any, clips: Any, **options: Any) -> qn.EncryptedUpdate:
        calls.append((tensors, clips))
        return encrypt(self, tensors, clips, **options)

    monkeypatch.setattr(qn.Encryptor, "encrypt", spy)
    simulation = Simulation(tiny(**NOISE, rounds=1))
    simulation.run()
    assert len(calls) == 4
    for tensors, clips in calls:
        assert STATISTICS not in tensors
        assert tensors.keys() == simulation.state.weights.keys()
        assert set(clips.values()) == {2047.0}
        assert all((np.rint(tensor) == tensor).all() for tensor in tensors.values())
    assert simulation.state.bounds is None


def test_a_sum_with_too_little_noise_is_not_opened(tiny: TinyConfig) -> None:
    """One of four may be missing; at times more are."""
    config = tiny(**NOISE, dropout=0.3, dp_missing=0.25, rounds=4, seed=4)
    _, results, recorder = recorded(config)
    assert results["privacy"]["least_shares"] == 3
    before, opened = None, []
    for record, state in zip(results["rounds"], recorder.states, strict=True):
        changed = before is None or any(
            (state.weights[name] != before.weights[name]).any() for name in state.weights
        )
        if before is not None:
            opened.append(changed)
            assert changed == (record["participants"] >= 3)
        before = state
    assert {True, False} == set(opened)


def test_groups_have_the_noise_of_their_own_members(tiny: TinyConfig) -> None:
    groups = {"aggregation": "median-of-groups", "groups": 2, "clients": 5}
    results = Simulation(tiny(**NOISE, **groups, rounds=1)).run()
    assert results["privacy"]["least_shares"] == 2
    assert results["privacy"]["parties"] == 5


@pytest.mark.parametrize(
    ("choices", "shares"),
    [
        ({"clients": 10, "dp_missing": 0.35}, 7),
        ({"clients": 10, "dp_missing": 0.9}, 1),
        ({"clients": 10, "dp_missing": 0.9, "min_arrivals": 4}, 4),
        ({"clients": 10, "dp_missing": 0.9, "aggregation": "median-of-groups", "groups": 5}, 2),
        ({"clients": 40, "participation": 0.25, "dp_missing": 0.1}, 9),
    ],
    ids=str,
)
def test_shares_of_noise_are_those_of_the_smallest_sum_that_is_opened(
    tiny: TinyConfig, choices: dict[str, Any], shares: int
) -> None:
    parties = Simulation(tiny(**{**NOISE, "bits": 16, **choices}))._parties
    assert parties.facts["privacy"]["least_shares"] == parties.least_arrivals == shares


@pytest.mark.slow
def test_with_a_joint_key(tiny: TinyConfig) -> None:
    results = Simulation(tiny(**NOISE, threshold=3, rounds=1)).run()
    assert results["receipt"]["threshold"]["needed"] == 3
    assert results["privacy"]["least_shares"] == 4


def test_bits_that_leave_no_room_are_refused_before_training(tiny: TinyConfig) -> None:
    with pytest.raises(MethodError, match="bits = 8 with dp-epsilon = 1 over 3 rounds: 4 clients'"):
        Simulation(tiny(dp="discrete-gaussian", dp_epsilon=1.0))


class StoppedError(Exception):
    """What ends a run after its first round."""


class StopAfterOne(Observer):
    def round_finished(self, record: Any) -> None:
        raise StoppedError


def test_a_resumed_run_goes_on_with_what_is_spent(tiny: TinyConfig, tmp_path: Path) -> None:
    config = tiny(**NOISE, rounds=2, out=tmp_path)
    with pytest.raises(StoppedError):
        Simulation(config, observer=StopAfterOne()).run()
    results = Simulation(config, resume=True).run()
    mechanism = Simulation(config)._parties.spent
    assert mechanism is not None
    assert [r["privacy"]["epsilon"] for r in results["rounds"]] == [mechanism(1), mechanism(2)]
    # Noise is made for a number of rounds: more of them would cost more than was said.
    with pytest.raises(CheckpointError, match="rounds: 2 then, 3 now"):
        Simulation(config.model_copy(update={"rounds": 3}), resume=True).run()
