"""One model of every class, through the same aggregator."""

from __future__ import annotations

import numpy as np
import pytest

from quancrypt_fl.lm.run import Finetuning
from quancrypt_fl.protect import Summer

CLASSES = {"LLM": "causal", "SLM": "classify", "VLM": "clip", "MLLM": "multimodal"}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_every_class_is_tuned_encrypted_as_with_plain_integers(
    kind: str, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(CLASSES[kind])
    encrypted, plain = (Finetuning(make(encryption=e)) for e in (True, False))
    start = encrypted.state.weights
    results, twin = encrypted.run(), plain.run()
    assert results["receipt"]["protected"]
    assert not twin["receipt"]["protected"]
    assert results["receipt"]["aggregator_held_secret_key"] is False
    assert isinstance(encrypted.server.updates, Summer)
    assert encrypted.state.bounds == plain.state.bounds
    for name, tensor in encrypted.state.weights.items():
        assert (tensor != start[name]).any(), name
        np.testing.assert_array_equal(tensor, plain.state.weights[name])
    for one, two in zip(results["rounds"], twin["rounds"], strict=True):
        assert (one["value"], one["train_loss"]) == (two["value"], two["train_loss"])
        assert one["lora_error"] < 1e-12
