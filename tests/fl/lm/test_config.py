"""The configuration of a fine-tuning, and its options."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from quancrypt_fl.cli.app import run
from quancrypt_fl.config import QuanCryptConfig
from quancrypt_fl.federation_config import FederationConfig
from quancrypt_fl.lm.config import CHOICES, GROUPS, FinetuneConfig

HERE = {"model": "gpt2", "data": Path("text.txt")}


def test_groups_cover_all_fields_in_order() -> None:
    names, covered = list(FinetuneConfig.model_fields), []
    for first, last in GROUPS.values():
        covered += names[names.index(first) : names.index(last) + 1]
    assert covered == names
    assert set(CHOICES) <= set(names)
    assert all(field.description for field in FinetuneConfig.model_fields.values())


def test_what_images_and_languages_share_is_one_configuration() -> None:
    shared = set(FederationConfig.model_fields)
    assert shared == set(FinetuneConfig.model_fields) & set(QuanCryptConfig.model_fields) - {
        "partition", "shards_per_client", "dirichlet_alpha", "max_train_samples",
        "max_test_samples", "model",
    }  # fmt: skip


def test_defaults_that_fit_the_task() -> None:
    causal = FinetuneConfig(**HERE).resolved()
    assert (causal.batch_size, causal.alpha, causal.pruning) == (8, 16.0, False)
    classify = FinetuneConfig(**HERE, task="classify", rank=4, partition="dirichlet").resolved()
    assert (classify.batch_size, classify.alpha, classify.max_weight) == (16, 8.0, 128)


@pytest.mark.parametrize(
    ("given", "meant"),
    [(None, None), ("all-linear", "all-linear"), ("q_proj, v_proj", ["q_proj", "v_proj"])],
)
def test_target_modules(given: str | None, meant: list[str] | str | None) -> None:
    assert FinetuneConfig(**HERE, target_modules=given).targets() == meant


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("causal", "0,1", "labels with task = 'causal'; allowed with task = 'classify'"),
        ("classify", "0", "labels = '0'; allowed: two or more, with commas, each once"),
        ("classify", "0,1,0", "each once"),
        ("classify", "0,,1", "two or more"),
    ],
)
def test_labels_that_cannot_be(task: str, labels: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FinetuneConfig(**HERE, task=task, labels=labels)


def test_labels_in_the_order_of_classes() -> None:
    named = FinetuneConfig(**HERE, task="classify", labels="no, yes")
    assert named.label_names() == ("no", "yes")
    assert FinetuneConfig(**HERE, task="classify").label_names() == ()


def test_where_files_lie_decides_nothing() -> None:
    one = FinetuneConfig(**HERE, out=Path("here"), rounds=2)
    two = FinetuneConfig(model="other", data=Path("there"), rounds=5)
    assert one.identity() == two.identity()
    assert one.identity() != FinetuneConfig(**HERE, mode="sb").identity()


def test_model_and_data_are_needed() -> None:
    with pytest.raises(ValidationError, match="model"):
        FinetuneConfig(data=Path("text.txt"))  # type: ignore[call-arg]


def test_help_names_every_choice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["lm", "finetune", "--help"]) == 0
    shown = capsys.readouterr().out
    for option in ("--task", "--mode", "--model", "--data", "--rank", "--resume", "--json"):
        assert option in shown
    assert "ffa|sb|alternate|both" in shown
    assert "causal|classify|clip|multimodal" in shown


def test_the_models_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ValidationError, match="is the model's own folder; allowed: another one"):
        FinetuneConfig(
            model=str(tmp_path / "model"), data=Path("text"), out=tmp_path / "x" / ".." / "model"
        )
