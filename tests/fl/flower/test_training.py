"""A training over Flower's messages gives what the method gives in one process, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fl.flower import numpy_app
from tests.fl.flower.federation import Federation, Reference, assert_equal, final

import quancrypt_native as qn

IN_TURN = (("linear.bias", "linear.weight"), ("linear.bias",))
"""Tensors that travel in rounds 1, 3, ... and 2, 4, ..."""


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"weighting": "prescaled"},
        {"weighting": "uniform", "smoothing": 0.5},
        {"rounding": "stochastic", "seed": 3},
        {"update": "weights"},
        {"mask": "client", "prune_global": True},
        {"error_feedback": True},
        {"pruning": None, "clip_factor": 2.0},
        {"turns": IN_TURN},
        {"turns": IN_TURN, "error_feedback": True, "weighting": "prescaled"},
    ],
    ids=lambda choices: ",".join(choices) or "default",
)
@pytest.mark.parametrize("on_disk", [False, True], ids=["context", "folder"])
def test_the_model_is_that_of_one_process(
    params: qn.Parameters,
    keys: qn.KeyPair,
    key_file: Path,
    tmp_path: Path,
    choices: dict[str, Any],
    on_disk: bool,
) -> None:
    federation = Federation(params, key_file, tmp_path if on_disk else None)
    result = federation.train(**choices)
    expected = Reference(params, **choices).train()
    assert_equal(final(result, keys), expected)
    assert sorted(result.evaluate_metrics_clientapp) == [1, 2, 3]
    accuracies = [m["eval_acc"] for m in result.evaluate_metrics_clientapp.values()]
    assert accuracies[-1] > 0.6
    records = federation.last.records
    assert [record["participants"] for record in records] == [5, 5, 5]
    assert [record["test_accuracy"] for record in records] == accuracies


def test_no_upload_holds_a_plain_tensor(params: qn.Parameters, key_file: Path) -> None:
    """Nothing that a client sends but ciphertexts depends on the size of the model."""
    federation = Federation(params, key_file)
    federation.train()
    plain = numpy_app.initial_arrays().count_bytes()
    assert plain > 2000
    for exchange in federation.grid.exchanges:
        for _, contents in exchange.replies or []:
            for data in contents.values():
                assert b"numpy.ndarray" not in data
