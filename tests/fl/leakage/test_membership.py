"""Membership inference end to end on digits, and ``quancrypt attack membership``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quancrypt_fl.cli.app import app, run
from quancrypt_fl.data import Samples, load_dataset
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.leakage.membership.evidence import Model, update_evidence
from quancrypt_fl.leakage.membership.federation import Federation, Pool
from quancrypt_fl.leakage.membership.study import membership_study
from quancrypt_fl.leakage.views import View
from quancrypt_fl.report.reading import collect

FEDERATION = Federation(model="mlp", clients=2, rounds=2, local_epochs=3)


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
    assert found["config"]["shadows"] == {"clear": 4, "layers": 2, "noise": 2}
    rows = {(v["training"], v["view"], v["attack"]): v for v in found["views"]}
    assert len(rows) == len(found["views"])
    for name in ("clear", "layers", "noise"):
        attacks = {attack for training, view, attack in rows if (training, view) == (name, "final")}
        assert attacks == {"loss", "shadow", "lira-online", "lira-offline"}
    clear = {view for training, view, _ in rows if training == "clear"}
    assert clear == {"final", "rounds", "single", "aggregate", "ciphertext"}
    assert {training for training, _, _ in rows} == {"clear", "layers", "noise"}
    for row in rows.values():
        assert row["auc_ci"][0] <= row["auc"] <= row["auc_ci"][1]
        assert 0 <= row["tpr_at_fpr_0.001"] <= row["tpr_at_fpr_0.01"] <= 1
        low, high = row["tpr_at_fpr_0.01_ci"]
        assert 0 <= low <= row["tpr_at_fpr_0.01"] <= high <= 1
        assert 0 <= row["advantage"] <= 1
        assert 0 < row["advantage_at_chance"] < 0.5
        assert (row["dataset"], row["model"]) == ("digits", "mlp")
        assert (row["auc_at_chance"] is None) == (not row["attack"].startswith("updates"))


def test_ciphertexts_are_held_against_the_same_round_in_the_clear(folder: Path) -> None:
    rows = {(v["training"], v["view"], v["attack"]): v for v in document(folder)["views"]}
    control = rows["clear", "single", "updates, round 1"]
    assert control["auc"] > 0.7
    assert control["auc"] > control["auc_at_chance"][1]
    assert not any(t != "clear" for t, _, attack in rows if attack == "updates, round 1")
    checks = {check["text"]: check for check in document(folder)["checks"]}
    works = checks["the same attack on plaintext updates of round 1 works"]
    assert (works["required"], works["passed"]) == ("AUC > 0.6", True)
    assert works["measured"] == f"{control['auc']:.3f}"
    found = rows["clear", "ciphertext", "updates"]
    low, high = found["auc_at_chance"]
    assert low < 0.5 < high
    assert checks["ciphertexts tell nothing about membership"] == {
        "text": "ciphertexts tell nothing about membership",
        "required": "AUC within 99 % of what chance gives",
        "measured": f"{found['auc']:.3f} (chance: {low:.2f} to {high:.2f})",
        "passed": low <= found["auc"] <= high,
        "basis": "ciphertexts of round 1",
    }


def test_shadow_models_are_trained_as_the_attacked_one_is(folder: Path) -> None:
    """Those in the clear have the parameters that they had when there were no others."""
    cells = {path.name: path for path in (folder / "cells").iterdir()}
    shadows = {name for name in cells if name.startswith("shadow")}
    assert shadows == {f"shadow-{n}" for n in range(4)} | {
        f"shadow-{training}-{n}" for training in ("layers", "noise") for n in range(2)
    }
    read = {n: json.loads((cells[n] / "measurement.json").read_bytes()) for n in shadows}
    clear = read["shadow-1"]["parameters"]
    assert set(clear) == {"dataset", "federation", "members", "seed", "shadow"}
    for training in ("layers", "noise"):
        target = json.loads((cells[f"target-{training}"] / "measurement.json").read_bytes())
        one = read[f"shadow-{training}-1"]
        assert one["parameters"] == {**clear, "view": target["parameters"]["view"]}
        assert one["results"]["member"] == read["shadow-1"]["results"]["member"]
        assert one["results"]["facts"]["loss"] != read["shadow-1"]["results"]["facts"]["loss"]


def test_noise_of_shadow_models_is_drawn_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from quancrypt_fl.leakage.membership import trial

    noise = View(kind="noise", noise=0.05)
    parameters = {
        "dataset": "digits", "seed": 3, "members": 20, "federation": vars(FEDERATION),
        "view": vars(noise),
    }  # fmt: skip
    seeds: list[int] = []
    train = Federation.train

    def noted(self: Federation, *given: Any, **options: Any) -> Any:
        assert given[2] == noise
        seeds.append(given[3])
        return train(self, *given, **options)

    monkeypatch.setattr(Federation, "train", noted)
    first, again, second = (
        trial.measure_shadow(None, "cpu", {**parameters, "shadow": n}) for n in (0, 0, 1)
    )
    assert first == again != second
    trial.measure_target(None, "cpu", parameters)
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


def test_each_training_is_attacked_with_its_own_shadow_models(folder: Path) -> None:
    from quancrypt_fl.leakage.membership.summary import summarize_membership
    from quancrypt_fl.leakage.membership.trial import pool_labels

    documents = {
        path.name: json.loads((path / "measurement.json").read_bytes())
        for path in (folder / "cells").iterdir()
    }
    labels = pool_labels(None, documents["target-clear"]["parameters"])
    assert labels.shape == (120,)
    without = {n: d for n, d in documents.items() if not n.startswith("shadow-layers")}
    rows = summarize_membership(without, labels, 1)["views"]
    before = document(folder)["views"]
    gone = [row for row in before if row not in rows]
    assert {(row["training"], row["attack"]) for row in gone} == {
        ("layers", "shadow"), ("layers", "lira-online"), ("layers", "lira-offline"),
    }  # fmt: skip
    assert [row for row in before if row in rows] == rows


def test_labels_of_the_pool_are_those_that_were_trained_on() -> None:
    from quancrypt_fl.leakage.membership import trial

    parameters = {"dataset": "digits", "seed": 3, "members": 50, "federation": vars(FEDERATION)}
    pool = trial._arranged(None, parameters, "target")[2]
    np.testing.assert_array_equal(trial.pool_labels(None, parameters), pool.samples.labels)


def test_curves_keep_their_low_ends() -> None:
    """What is drawn is, at every false positive rate of the grid, the best point before it."""
    from quancrypt_fl.leakage.membership import summary
    from quancrypt_fl.leakage.membership.quality import quality

    rng = np.random.default_rng(9)
    member = np.arange(4000) < 2000
    score = rng.normal(2.0 * member, 1)
    found = quality(score, member, 1)
    scored = summary._Scored("final", "clear", "loss", score)
    curve = summary._curve(scored, found)
    false, true = np.array(curve["false"]), np.array(curve["true"])
    assert len(false) <= 203
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    for rate in (0.0, 1 / 2000, 2 / 2000, 0.01, 1.0):
        best = found.curve[1][found.curve[0] <= rate + 1e-12].max()
        assert true[false <= rate + 1e-12].max() == pytest.approx(best, abs=0.02 if rate else 0)
    assert np.sum(false < 0.01) > 15


def test_sizes_by_scale_and_option() -> None:
    def counted(scale: str, shadows: int | None) -> list[int]:
        plan = Plan(scale=scale, seeds=(1,))
        ids = [cell.id for cell in membership_study("digits", shadows=shadows).cells(plan)]
        kinds = [id_.rpartition("-")[0] for id_ in ids]
        return [kinds.count(key) for key in ("shadow", "shadow-layers", "shadow-noise")]

    assert counted("quick", None) == [16, 8, 8]
    assert counted("standard", None) == [64, 32, 32]
    assert counted("paper", None) == [256, 128, 128]
    assert counted("paper", 7) == [7, 3, 3]
    assert counted("quick", 2) == [2, 2, 2]


def test_a_device_that_is_not_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not available here"):
        app(
            args=["attack", "membership", "--device", "cuda", "--out", str(tmp_path)],
            standalone_mode=False,
        )


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


@pytest.mark.parametrize("other", [("--members", "40"), ("--seed", "2"), ("--model", "cnn")])
def test_a_folder_belongs_to_one_training(
    folder: Path, capsys: pytest.CaptureFixture[str], other: tuple[str, ...]
) -> None:
    before = document(folder)
    chosen = {"--members": "60", "--shadows": "4", **dict([other])}
    options = [word for pair in chosen.items() for word in pair]
    assert run(["attack", "membership", *options, "--out", str(folder)]) == 2
    assert "seed 1, model mlp, members 60" in capsys.readouterr().err
    assert document(folder) == before


def test_more_members_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(["attack", "membership", "--members", "720", "--out", str(out)]) == 2
    assert "members = 720; allowed with digits here: 20 to 719" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_names_what_was_chosen(folder: Path) -> None:
    said = "`quancrypt attack membership --dataset digits --members 60 --shadows 4 --scale quick`"
    assert said in (folder / "table.md").read_text()


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
