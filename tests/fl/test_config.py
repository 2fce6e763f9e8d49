"""The configuration: defaults, limits, and errors that name value and choice."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quancrypt_fl import QuanCryptConfig
from quancrypt_fl.config import CHOICES, GROUPS, describe_errors


@pytest.mark.parametrize(
    ("choices", "batch", "epochs", "weight", "threads"),
    [
        ({}, 16, 5, 16, 1),
        ({"dataset": "mnist", "model": "cnn"}, 64, 1, 16, 2),
        ({"dataset": "mnist", "clients": 39}, 64, 1, 64, 1),
        ({"dataset": "mnist", "clients": 40}, 128, 1, 64, 1),
        ({"partition": "dirichlet"}, 16, 5, 128, 1),
        ({"partition": "dirichlet", "weighting": "prescaled"}, 16, 5, 16, 1),
        ({"clients": 1}, 16, 5, 1, 1),
        ({"batch_size": 7, "local_epochs": 3, "max_weight": 99, "threads": 3}, 7, 3, 99, 3),
    ],
)
def test_defaults_that_depend_on_others(
    choices: dict[str, Any], batch: int, epochs: int, weight: int, threads: int
) -> None:
    config = QuanCryptConfig(**choices).resolved()
    assert config.batch_size == batch
    assert config.local_epochs == epochs
    assert config.max_weight == weight
    assert config.threads == threads
    assert config.resolved() == config


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"method": "fedsgd"},
            "method = 'fedsgd': not available; available: quancrypt, vanilla, batchcrypt, tenseal, "
            "dp-gaussian, dp-laplace",
        ),
        (
            {"dataset": "imagenet"},
            "dataset = 'imagenet': not available; available: digits, mnist, fashion-mnist",
        ),
        ({"bits": 17}, "bits = 17: Input should be less than or equal to 16"),
        ({"bits": 1}, "bits = 1: Input should be greater than or equal to 2"),
        ({"clients": 0}, "clients = 0: Input should be greater than or equal to 1"),
        (
            {"update": "weights", "error_feedback": True},
            "with update = 'weights' left-out weights would be sent again and again",
        ),
        ({"min_arrivals": 11}, "min_arrivals = 11 is above the 10 clients of a round"),
        ({"clip_factor": 1e7}, "clip_factor = 10000000.0: Input should be less than or equal to"),
        ({"t_eff": 300}, "t_eff = 300 must be below t_target = 300"),
        ({"p_0": 0.7}, "p_0 = 0.7 is above p_target = 0.5"),
        ({"p_target": 1.0}, "p_target = 1.0: a pruning rate is in [0, 1)"),
        ({"max_weight": 5}, "max_weight = 5 is below the 10 clients"),
        ({"security": 100}, "security = 100: a security level is 128, 192 or 256"),
        ({"smoothing": 0}, "smoothing = 0: Input should be greater than 0"),
        ({"lr": float("inf")}, "lr = inf: Input should be a finite number"),
        ({"roundz": 3}, "roundz = 3: Extra inputs are not permitted"),
        ({"model": "vgg"}, "model = 'vgg': not available; available: mlp, cnn, alexnet, resnet18"),
        ({"update": "sum"}, "update = 'sum': not available; available: delta, weights"),
        ({"mask": "none"}, "mask = 'none': not available; available: shared, client"),
        ({"batch_norm": "off"}, "batch_norm = 'off': not available; available: average, local"),
        ({"device": "tpu"}, "device = 'tpu': not available; available: cpu, cuda"),
        ({"tenseal_parameters": "x"}, "tenseal_parameters = 'x': not available; available: paper"),
        ({"rounding": "up"}, "rounding = 'up': not available; available: nearest, stochastic"),
        ({"participation": 0}, "participation = 0: Input should be greater than 0"),
        ({"participation": 1.01}, "participation = 1.01: Input should be less than or equal to 1"),
        ({"participation": float("nan")}, "participation = nan: "),
        ({"dropout": -0.1}, "dropout = -0.1: Input should be greater than or equal to 0"),
        ({"dropout": 1.0}, "dropout = 1.0: Input should be less than 1"),
        ({"dropout": float("nan")}, "dropout = nan: "),
        ({"patience": 0}, "patience = 0: Input should be greater than or equal to 1"),
        ({"encryption": "maybe"}, "encryption = 'maybe': Input should be a valid boolean"),
        ({"paillier_bits": 511}, "paillier_bits = 511: Input should be greater than or equal"),
        ({"paillier_bits": 8193}, "paillier_bits = 8193: Input should be less than or equal"),
        ({"processes": 0}, "processes = 0: Input should be greater than or equal to 1"),
        ({"dp_epsilon": 0}, "dp_epsilon = 0: Input should be greater than 0"),
        ({"dp_epsilon": float("inf")}, "dp_epsilon = inf: Input should be a finite number"),
        ({"dp_delta": 0}, "dp_delta = 0: Input should be greater than 0"),
        ({"dp_delta": 1}, "dp_delta = 1: Input should be less than 1"),
        ({"dp_clip": 0}, "dp_clip = 0: Input should be greater than 0"),
        (
            {"max_weight": 2, "participation": 0.3},
            "max_weight = 2 is below the 3 clients of a round",
        ),
        ({"tensorboard": True}, "tensorboard = True needs out"),
        ({"threshold": 1}, "threshold = 1: Input should be greater than or equal to 2"),
        ({"threshold": 11}, "threshold = 11 is above the 10 clients of a round"),
        (
            {"threshold": 4, "participation": 0.3},
            "threshold = 4 is above the 3 clients of a round",
        ),
        ({"threshold": 2, "clients": 1}, "threshold = 2 is above the 1 clients of a round"),
        (
            {"threshold": 3, "clients": 129},
            "threshold = 3 makes a joint key of all 129 clients; allowed: up to 128",
        ),
        (
            {"threshold": 3, "method": "vanilla"},
            "threshold = 3 makes a joint key; allowed only with method = 'quancrypt' and "
            "encryption = True",
        ),
        ({"threshold": 3, "encryption": False}, "allowed only with method = 'quancrypt' and "),
        ({"open_dropout": 1}, "open_dropout = 1: Input should be less than 1"),
        ({"aggregation": "median"}, "aggregation = 'median': not available; available: mean, "),
        ({"groups": 1}, "groups = 1: Input should be greater than or equal to 2"),
        (
            {"aggregation": "median-of-groups", "groups": 6},
            "the 10 clients of a round do not make groups of 2 or more; allowed: up to 5 groups",
        ),
        (
            {"aggregation": "median-of-groups", "min_arrivals": 4},
            "do not make groups of 4 or more; allowed: up to 2 groups",
        ),
        (
            {"aggregation": "median-of-groups", "method": "batchcrypt"},
            "aggregation = 'median-of-groups' is for method = 'quancrypt' and 'vanilla'",
        ),
        (
            {"aggregation": "median-of-groups", "threshold": 3},
            "'quancrypt' and 'vanilla', without threshold keys",
        ),
        ({"max_bound": 0}, "max_bound = 0: Input should be greater than or equal to"),
        ({"dp": "laplace"}, "dp = 'laplace': not available; available: none, discrete-gaussian"),
        ({"dp_missing": 1}, "dp_missing = 1: Input should be less than 1"),
        (
            {"dp": "discrete-gaussian", "method": "vanilla"},
            "adds noise to encrypted integers: allowed with method = 'quancrypt', not 'vanilla'",
        ),
        (
            {"dp": "discrete-gaussian", "error_feedback": True},
            "allowed: update = 'delta', and no error_feedback",
        ),
        (
            {"dp": "discrete-gaussian", "update": "weights"},
            "allowed: update = 'delta', and no error_feedback",
        ),
    ],
)
def test_errors_name_value_and_what_is_allowed(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        QuanCryptConfig(**choices)
    described = describe_errors(caught.value)
    assert message in described
    assert "\n" not in described


def test_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(QuanCryptConfig(), "bits", 4)  # noqa: B010


OTHER: dict[str, Any] = {
    "dataset": "mnist", "data_dir": "d", "partition": "shards", "shards_per_client": 3,
    "dirichlet_alpha": 0.7, "max_train_samples": 100, "max_test_samples": 100, "model": "cnn",
    "clients": 4, "rounds": 3, "participation": 0.5, "dropout": 0.2, "min_arrivals": 2,
    "patience": 4, "lr": 0.1, "weight_decay": 0.1, "batch_size": 8, "local_epochs": 2,
    "batch_norm": "local", "seed": 2,
    "threads": 3, "device": "cuda", "method": "vanilla", "encryption": False, "threshold": 2,
    "open_dropout": 0.1, "bits": 6, "rounding": "stochastic", "update": "weights",
    "clip_factor": 2.0, "max_bound": 1.0, "pruning": False,
    "mask": "client", "p_0": 0.1, "p_target": 0.6, "t_eff": 10, "t_target": 100,
    "prune_global": True, "error_feedback": True, "smoothing": 0.5, "weighting": "uniform",
    "max_weight": 99, "aggregation": "median-of-groups", "groups": 5, "security": 192,
    "dp": "discrete-gaussian", "dp_missing": 0.1, "paillier_bits": 1024, "processes": 2,
    "tenseal_parameters": "code", "dp_epsilon": 1.0, "dp_delta": 1e-6, "dp_clip": 2.0, "out": "o",
    "tensorboard": True,
}  # fmt: skip
"""Another value than the default for each field."""

PLACES = {"data_dir", "out", "rounds", "processes", "tensorboard"}


def test_every_field_has_another_value() -> None:
    assert set(OTHER) == set(QuanCryptConfig.model_fields)
    for name, field in QuanCryptConfig.model_fields.items():
        assert field.default != OTHER[name]


@pytest.mark.parametrize("field", sorted(OTHER))
def test_identity_leaves_out_places_and_length(field: str) -> None:
    """Everything else decides results, and must be equal to go on from a checkpoint."""
    base: dict[str, Any] = {"out": "b"} if field != "out" else {}
    one, two = QuanCryptConfig(**base), QuanCryptConfig(**{**base, field: OTHER[field]})
    assert (one.identity() == two.identity()) == (field in PLACES)
    assert set(one.identity()) == set(OTHER) - PLACES


@pytest.mark.parametrize(
    "noise", [{"method": "dp-gaussian"}, {"method": "dp-laplace"}, {"dp": "discrete-gaussian"}]
)
def test_noise_for_so_many_rounds_is_for_so_many_rounds(noise: dict[str, Any]) -> None:
    one, two = (QuanCryptConfig(rounds=rounds, **noise) for rounds in (3, 4))
    assert one.identity() != two.identity()
    assert one.identity() == QuanCryptConfig(rounds=3, out="o", **noise).identity()


def test_identity_is_that_of_the_resolved_configuration() -> None:
    assert QuanCryptConfig().identity() == QuanCryptConfig(batch_size=16).identity()
    assert QuanCryptConfig().identity() == QuanCryptConfig().resolved().identity()


@pytest.mark.parametrize(
    ("choices", "weight"),
    [
        ({"clients": 100, "participation": 0.1}, 16),
        ({"clients": 100, "participation": 0.01}, 1),
        ({"clients": 100, "participation": 0.1, "partition": "dirichlet"}, 128),
        ({"clients": 65_536, "partition": "dirichlet"}, 65_536),
        ({"clients": 100, "participation": 0.1, "max_weight": 10}, 10),
    ],
)
def test_max_weight_is_for_the_participants(choices: dict[str, Any], weight: int) -> None:
    assert QuanCryptConfig(**choices).resolved().max_weight == weight


def test_groups_cover_all_fields_in_order() -> None:
    names, covered = list(QuanCryptConfig.model_fields), []
    for first, last in GROUPS.values():
        covered += names[names.index(first) : names.index(last) + 1]
    assert covered == names
    assert set(CHOICES) <= set(names)
    assert all(field.description for field in QuanCryptConfig.model_fields.values())
