"""The configuration: defaults, limits, and errors that name value and choice."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from quancrypt_fl import QuanCryptConfig
from quancrypt_fl.config import describe_errors


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
            {"method": "batchcrypt"},
            "method = 'batchcrypt': not available; available: quancrypt, vanilla",
        ),
        (
            {"dataset": "imagenet"},
            "dataset = 'imagenet': not available; available: digits, mnist, fashion-mnist",
        ),
        ({"bits": 17}, "bits = 17: Input should be less than or equal to 16"),
        ({"bits": 1}, "bits = 1: Input should be greater than or equal to 2"),
        ({"clients": 0}, "clients = 0: Input should be greater than or equal to 1"),
        ({"t_eff": 300}, "t_eff = 300 must be below t_target = 300"),
        ({"p_0": 0.7}, "p_0 = 0.7 is above p_target = 0.5"),
        ({"p_target": 1.0}, "p_target = 1.0: a pruning rate is in [0, 1)"),
        ({"max_weight": 5}, "max_weight = 5 is below the 10 clients"),
        ({"security": 100}, "security = 100: a security level is 128, 192 or 256"),
        ({"smoothing": 0}, "smoothing = 0: Input should be greater than 0"),
        ({"lr": float("inf")}, "lr = inf: Input should be a finite number"),
        ({"roundz": 3}, "roundz = 3: Extra inputs are not permitted"),
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


def test_identity_leaves_out_places_and_length() -> None:
    one = QuanCryptConfig(rounds=3, out="a")  # type: ignore[arg-type]
    two = QuanCryptConfig(rounds=9, out="b", data_dir="c")  # type: ignore[arg-type]
    assert one.identity() == two.identity()
    assert one.identity() != QuanCryptConfig(seed=2).identity()
