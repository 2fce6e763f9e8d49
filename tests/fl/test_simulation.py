"""Whole runs: accuracy, reproducibility, the options, resuming."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.data_files import write_mnist
from tests.fl.spies import Uploads, watch

from quancrypt_fl import QuanCryptConfig, Simulation
from quancrypt_fl.checkpoint import Checkpoints
from quancrypt_fl.errors import CheckpointError, FederatedError
from quancrypt_fl.observer import Observer

TinyConfig = Callable[..., QuanCryptConfig]


def without_times(results: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in two runs of one configuration, whatever their keys."""
    copy: dict[str, Any] = json.loads(json.dumps(results))
    for record in [*copy["rounds"], copy["totals"]]:
        del record["seconds"]
    copy["receipt"].pop("keys", None)
    copy["config"].pop("out")
    return copy


def assert_equal_weights(one: Simulation, two: Simulation) -> None:
    assert one.state.round == two.state.round
    assert one.state.bounds == two.state.bounds
    for name, tensor in one.state.weights.items():
        np.testing.assert_array_equal(tensor, two.state.weights[name])


def test_the_default_run_learns_digits_as_well_as_vanilla() -> None:
    encrypted = Simulation(QuanCryptConfig()).run()
    vanilla = Simulation(QuanCryptConfig(method="vanilla")).run()
    assert encrypted["totals"]["test_accuracy"] > 0.93
    difference = encrypted["totals"]["test_accuracy"] - vanilla["totals"]["test_accuracy"]
    assert abs(difference) <= 0.02
    assert encrypted["totals"]["bytes"]["upload"] < 0.55 * vanilla["totals"]["bytes"]["upload"]


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"method": "vanilla"},
        {"rounding": "stochastic", "bits": 4},
        {"model": "cnn", "rounds": 2, "threads": 1, "max_train_samples": 200},
    ],
)
def test_a_seed_reproduces_a_run_exactly(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    one, two = Simulation(tiny(**choices)), Simulation(tiny(**choices))
    assert without_times(one.run()) == without_times(two.run())
    assert_equal_weights(one, two)


def test_another_seed_gives_another_run(
    tiny: TinyConfig, tiny_run: tuple[Simulation, dict[str, Any]]
) -> None:
    other = Simulation(tiny(seed=2)).run()
    assert other["rounds"][0]["train_loss"] != tiny_run[1]["rounds"][0]["train_loss"]


@pytest.mark.parametrize(
    "choices",
    [
        {"partition": "dirichlet", "dirichlet_alpha": 0.3},
        {"partition": "dirichlet", "weighting": "prescaled"},
        {"partition": "shards", "weighting": "uniform"},
        {"smoothing": 0.5},
        {"bits": 2},
        {"bits": 16, "max_weight": 1000},
        {"p_0": 0.5, "p_target": 0.8, "t_eff": 0, "t_target": 2},
        {"clients": 1},
        {"max_train_samples": 200, "max_test_samples": 50},
        {"security": 192},
    ],
    ids=str,
)
def test_options_run_and_learn(tiny: TinyConfig, choices: dict[str, Any]) -> None:
    results = Simulation(tiny(local_epochs=3, **choices)).run()
    losses = [record["test_loss"] for record in results["rounds"]]
    assert losses[-1] < losses[0]


def test_the_size_of_uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpruned at most half of float32, the exchange before round 1 included; a quarter at 0.5."""
    write_mnist(tmp_path, train=20, test=4)

    def uploads(**choices: Any) -> tuple[Uploads, dict[str, Any]]:
        config = QuanCryptConfig(
            dataset="mnist", model="cnn", data_dir=tmp_path, clients=2, rounds=2, threads=1,
            **choices,
        )  # fmt: skip
        simulation = Simulation(config)
        return watch(simulation, monkeypatch), simulation.run()

    for choices, share in (({"pruning": False}, 0.5), ({"p_0": 0.5}, 0.25)):
        seen, results = uploads(**choices)
        float32 = 4 * 421_642
        assert results["totals"]["float32_update_bytes"] == float32
        for t, record in enumerate(results["rounds"]):
            report = seen.reports.get((0, t), 0)
            assert (report > 0) == (t == 0)
            assert report < 0.05 * seen.updates[0, t]
            assert record["bytes"]["upload"] == report + seen.updates[0, t]
            assert record["bytes"]["upload"] <= share * float32
    plain = uploads(encryption=False, pruning=False)[1]["rounds"][1]
    assert plain["bytes"]["upload"] == pytest.approx(2 * 421_642, rel=0.01)  # int16
    assert plain["ciphertexts"] == 0


def test_the_pruning_rate_of_each_round_is_recorded(tiny: TinyConfig) -> None:
    run = Simulation(tiny(rounds=4, p_0=0.2, p_target=0.4, t_eff=1, t_target=3)).run()
    assert [r["pruning_rate"] for r in run["rounds"]] == pytest.approx([0.2, 0.2, 0.3, 0.4])
    assert all(r["pruning_rate"] == 0 for r in Simulation(tiny(pruning=False)).run()["rounds"])


def test_a_simulation_runs_once(tiny: TinyConfig) -> None:
    """What an interrupted round left in the sum must not go into another."""
    simulation = Simulation(tiny(rounds=1))
    simulation.run()
    with pytest.raises(FederatedError, match="this Simulation has run"):
        simulation.run()


class _Interrupt(Observer):
    def round_finished(self, record: Any) -> None:
        if record["round"] == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("method", ["quancrypt", "vanilla"])
def test_resuming_equals_an_uninterrupted_run(
    tiny: TinyConfig, tmp_path: Path, method: str
) -> None:
    whole = Simulation(tiny(rounds=4, method=method))
    expected = whole.run()
    config = tiny(rounds=4, method=method, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Simulation(config, observer=_Interrupt()).run()
    assert not (tmp_path / "results.json").exists()

    resumed = Simulation(config, resume=True)
    results = resumed.run()
    assert_equal_weights(whole, resumed)
    assert without_times(results) == without_times(expected)
    if method == "quancrypt":
        keys = results["receipt"]["keys"]
        assert [key["from_round"] for key in keys] == [1, 3]
        assert keys[0]["fingerprint"] != keys[1]["fingerprint"]


def test_a_finished_run_can_be_prolonged(tiny: TinyConfig, tmp_path: Path) -> None:
    Simulation(tiny(rounds=2, out=tmp_path)).run()
    again = Simulation(tiny(rounds=2, out=tmp_path), resume=True).run()
    assert len(again["receipt"]["keys"]) == 1
    longer = Simulation(tiny(rounds=3, out=tmp_path), resume=True)
    assert longer.saved_rounds == 0
    longer.run()
    assert longer.saved_rounds == 3
    with pytest.raises(CheckpointError, match="3 rounds are done already, --rounds is 2"):
        Simulation(tiny(rounds=2, out=tmp_path), resume=True).run()
    whole = Simulation(tiny(rounds=3))
    whole.run()
    assert_equal_weights(longer, whole)


def test_checkpoints_that_cannot_be_resumed(tiny: TinyConfig, tmp_path: Path) -> None:
    config = tiny(rounds=1, out=tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
        Simulation(config, resume=True).run()
    Simulation(config).run()
    other = tiny(rounds=1, out=tmp_path, lr=0.5)
    with pytest.raises(CheckpointError, match=r"another configuration \(lr: 0.001 then, 0.5 now\)"):
        Simulation(other, resume=True).run()

    state = tmp_path / "checkpoints" / "state.json"
    (weights,) = state.parent.glob("weights-round-*.safetensors")
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        Simulation(config, resume=True).run()
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        Simulation(config, resume=True).run()
    for content in ("{", "[]", '{"version": 1}', '{"version": 7, "identity": {}}'):
        state.write_text(content)
        with pytest.raises(CheckpointError):
            Simulation(config, resume=True).run()


def test_a_fresh_run_forgets_older_checkpoints(tiny: TinyConfig, tmp_path: Path) -> None:
    Simulation(tiny(rounds=2, out=tmp_path)).run()
    Simulation(tiny(rounds=1, out=tmp_path, seed=7)).run()
    checkpoint = Checkpoints(tmp_path / "checkpoints", Simulation(tiny(seed=7)).identity()).load()
    assert checkpoint.state.round == 1
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_another_data_set_of_the_same_name_is_no_continuation(
    tiny: TinyConfig, tmp_path: Path
) -> None:
    """Its split would be another: what was set aside for validation would be trained on."""
    for name, count in (("one", 60), ("two", 59)):
        write_mnist(tmp_path / name, train=count, test=20)
    choices = {"dataset": "mnist", "rounds": 1, "out": tmp_path / "run"}
    Simulation(tiny(**choices, data_dir=tmp_path / "one")).run()
    with pytest.raises(CheckpointError, match="another configuration \\(data: "):
        Simulation(tiny(**choices, data_dir=tmp_path / "two"), resume=True).run()


def test_resuming_needs_a_folder(tiny: TinyConfig) -> None:
    with pytest.raises(CheckpointError, match="resume = True needs out"):
        Simulation(tiny(), resume=True).run()


def test_nothing_secret_is_written(tiny: TinyConfig, tmp_path: Path) -> None:
    simulation = Simulation(tiny(rounds=1, out=tmp_path))
    simulation.run()
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        "results.json", "plot.png", "model.safetensors", "state.json",
        "weights-round-00001.safetensors",
    }  # fmt: skip
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
