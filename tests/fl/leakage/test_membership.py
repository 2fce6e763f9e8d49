"""Membership inference end to end on digits, and ``quancrypt attack membership``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quancrypt_fl.cli.app import app
from quancrypt_fl.data import Samples, load_dataset
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.leakage.membership.evidence import Model, update_evidence
from quancrypt_fl.leakage.membership.federation import Federation, Pool
from quancrypt_fl.leakage.membership.study import membership_study
from quancrypt_fl.leakage.views import View
from quancrypt_fl.report.reading import collect


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("membership")
    arguments = ["attack", "membership", "--members", "60", "--shadows", "4", "--out", str(out)]
    app(args=arguments, standalone_mode=False)
    return out


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "membership.json").read_bytes())
    return found


def test_the_document_is_that_of_the_contract(folder: Path) -> None:
    found = document(folder)
    assert found["seed"] == 1
    assert found["complete"] is True
    assert found["config"]["shadows"] == 4
    rows = {(v["training"], v["view"], v["attack"]): v for v in found["views"]}
    attacks = {attack for training, view, attack in rows if (training, view) == ("clear", "final")}
    assert attacks == {"loss", "shadow", "lira-online", "lira-offline"}
    clear = {view for training, view, _ in rows if training == "clear"}
    assert clear == {"final", "rounds", "single", "aggregate", "ciphertext"}
    assert {training for training, _, _ in rows} == {"clear", "layers", "noise"}
    for row in rows.values():
        assert row["auc_ci"][0] <= row["auc"] <= row["auc_ci"][1]
        assert 0 <= row["tpr_at_fpr_0.001"] <= row["tpr_at_fpr_0.01"] <= 1
        assert 0 <= row["advantage"] <= 1


def test_members_show_in_the_clear_and_not_in_ciphertexts(folder: Path) -> None:
    rows = {(v["training"], v["view"], v["attack"]): v for v in document(folder)["views"]}
    assert rows["clear", "single", "updates"]["auc"] > 0.7
    assert rows["clear", "final", "loss"]["auc"] > 0.6
    # Encryption is drawn from the system: 60 + 60 samples are within 0.2 of chance, 4 sigma.
    assert abs(rows["clear", "ciphertext", "updates"]["auc"] - 0.5) < 0.2


def test_noise_is_said_to_be_worth_what_an_accountant_says(folder: Path) -> None:
    pytest.importorskip("dp_accounting", reason="needs the [privacy] extra")
    from quancrypt_fl.private.accounting import epsilon_of

    found = {view["training"]: view["epsilon"] for view in document(folder)["views"]}
    assert found["clear"] is found["layers"] is None
    settings = document(folder)["config"]["federation"]
    rho = settings["rounds"] / (2 * settings["clients"] * 0.05**2)
    exact = epsilon_of(rho, 1e-5)
    assert exact <= found["noise"] <= 1.05 * exact  # a bound in closed form


def test_curves_and_tables_are_written(folder: Path) -> None:
    assert document(folder)["pictures"] == ["roc.png"]
    assert (folder / "roc.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "table.md").read_text()
    assert "Membership of a sample:" in table
    assert "What the layers cost:" in table
    found = collect(folder)
    assert not found.problems
    assert found.experiments[0].title == "Membership inference, digits, mlp"


def test_interrupted_studies_go_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More shadow models: the finished cells stay, and only the new ones run."""
    from quancrypt_fl.leakage.membership import study

    def fails(*_: object) -> dict[str, Any]:
        raise AssertionError("a finished cell ran again")

    before = document(folder)["views"]
    monkeypatch.setattr(study, "measure_target", fails)
    monkeypatch.setattr(study, "measure_shadow", fails)
    app(
        args=["attack", "membership", "--members", "60", "--shadows", "4", "--json", "--out",
              str(folder)],
        standalone_mode=False,
    )  # fmt: skip
    assert json.loads(capsys.readouterr().out)["views"] == before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "cats"}, "dataset = 'cats'; allowed: digits, mnist"),
        ({"model": "vgg"}, "model = 'vgg'; allowed: mlp"),
        ({"members": 3}, "members = 3; allowed: 20 to 20,000"),
        ({"shadows": 1}, "shadows = 1; allowed: 2 to 1,000"),
    ],
)
def test_bad_choices_say_what_is_allowed(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        membership_study(**{"dataset": "digits", **given})


# --- parts ---


def small_pool() -> tuple[Any, Pool]:
    dataset = load_dataset("digits", None, 1)
    member = np.arange(40) % 2 == 0
    return dataset, Pool(dataset.train.head(40), member, (np.arange(40) // 2) % 2)


FEDERATION = Federation(model="mlp", clients=2, rounds=2, local_epochs=3)


def test_a_federation_adds_the_mean_of_what_clients_send() -> None:
    dataset, pool = small_pool()
    trainer = FEDERATION.trainer(dataset, 1)
    history = FEDERATION.train(trainer, pool, View(kind="plaintext"), 1)
    assert len(history.weights) == 3
    assert [len(updates) for updates in history.updates] == [2, 2]
    for t in range(2):
        mean = history.mean_update(t)
        for name, before in history.weights[t].items():
            np.testing.assert_allclose(
                history.weights[t + 1][name], before + mean[name], rtol=1e-5, atol=1e-6
            )
    last = FEDERATION.train(FEDERATION.trainer(dataset, 1), pool, View(kind="plaintext"), 1,
                            keep=False)  # fmt: skip
    for name, values in last.weights[-1].items():
        np.testing.assert_array_equal(values, history.weights[-1][name])


def test_layers_leave_out_half_of_an_update() -> None:
    dataset, pool = small_pool()
    view = View(kind="all-layers", rate=0.5, clip=True, bits=8)
    history = FEDERATION.train(FEDERATION.trainer(dataset, 1), pool, view, 1)
    weight = history.updates[0][0]["1.weight"]
    assert np.mean(weight == 0) >= 0.5
    assert len(np.unique(weight)) <= 255
    assert history.sent == pytest.approx(weight.size / 2, rel=0.2)


def test_the_slope_along_an_update_is_the_gradient_times_it() -> None:
    dataset, pool = small_pool()
    history = FEDERATION.train(FEDERATION.trainer(dataset, 1), pool, View(kind="plaintext"), 1)
    model = Model("mlp", dataset)
    weights, update = history.weights[0], history.updates[0][0]
    evidence = update_evidence(model, weights, update, pool.samples)
    trained = {name: w + update[name] for name, w in weights.items()}
    np.testing.assert_allclose(evidence[:, 0], model.losses(weights, pool.samples))
    np.testing.assert_allclose(evidence[:, 1], model.losses(trained, pool.samples))
    mine = pool.member & (pool.client == 0)
    assert evidence[mine, 2].mean() < evidence[~mine, 2].mean() < 0


def test_confidence_is_the_logit_of_the_right_class() -> None:
    dataset, pool = small_pool()
    model = Model("mlp", dataset)
    weights = FEDERATION.trainer(dataset, 1).weights()
    facts = model.facts(weights, pool.samples)
    right = np.exp(-facts["loss"])
    np.testing.assert_allclose(facts["confidence"], np.log(right / (1 - right)), rtol=1e-6)
    assert facts["top"].shape == (40, 3)
    assert np.all(np.diff(facts["top"], axis=1) <= 0)


def test_a_pool_is_divided_by_its_seed() -> None:
    from quancrypt_fl.leakage.membership import trial

    parameters = {"dataset": "digits", "seed": 3, "members": 50, "federation": vars(FEDERATION)}
    pools = [trial._arranged(None, parameters, use)[2] for use in ("target", "target", "shadow-1")]
    assert [int(pool.member.sum()) for pool in pools] == [50, 50, 50]
    assert np.array_equal(pools[0].member, pools[1].member)
    assert not np.array_equal(pools[0].member, pools[2].member)
    assert all(isinstance(pool.samples, Samples) for pool in pools)
    for kind in (True, False):
        sizes = np.bincount(pools[0].client[pools[0].member == kind])
        assert sizes.tolist() == [25, 25]
