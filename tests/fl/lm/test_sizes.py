"""Bytes of adapters of a Llama-2-7B: promised sizes, and that what is planned is what is sent."""

from __future__ import annotations

import numpy as np
import pytest

import quancrypt_native as qn
from quancrypt_fl.baselines.tenseal_ckks import TensealCkks
from quancrypt_fl.bench.adapters import LLAMA_2_7B, AdaptedLayers, value_count
from quancrypt_fl.cli.estimate import Estimate, default_max_weight
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.experiments.subjects import Subject, update_of

CLIENTS = 10
HEADER = 150
"""Bytes of a header for each tensor: its name, as long as peft's are, shape and clip bound."""


def planned(values: int) -> Estimate:
    """What ``quancrypt plan --values VALUES --clients 10`` shows."""
    weight = default_max_weight(CLIENTS)
    params = qn.Parameters.for_aggregation(bits=8, max_weight=weight, values=values)
    return Estimate(params, values, CLIENTS)


def test_the_layer_list_is_that_of_the_papers() -> None:
    both, ffa = (LLAMA_2_7B.shapes(mode, 32) for mode in ("both", "ffa"))
    assert (value_count(both), len(both)) == (16_777_216, 128)
    assert (value_count(ffa), len(ffa)) == (8_388_608, 64)
    assert value_count(LLAMA_2_7B.shapes("sb", 64)) == 262_144
    name = "base_model.model.model.layers.31.self_attn.v_proj.lora_B.weight"
    assert ffa[name] == (4096, 32)
    assert set(ffa) < set(both)
    with pytest.raises(ConfigError, match=r"mode = 'full'; allowed: ffa, sb, both"):
        LLAMA_2_7B.shapes("full", 32)
    with pytest.raises(ConfigError, match=r"rank = 4097; allowed: 1 to 4096"):
        LLAMA_2_7B.shapes("ffa", 4097)


@pytest.mark.parametrize(
    ("mode", "rank", "megabytes"), [("both", 32, 30.0), ("ffa", 32, 15.0), ("sb", 64, 1.0)]
)
def test_an_adapter_of_7b_stays_below_its_limit(mode: str, rank: int, megabytes: float) -> None:
    shapes = LLAMA_2_7B.shapes(mode, rank)
    values = value_count(shapes)
    upload = planned(values).upload_bytes + HEADER * len(shapes)
    assert upload < megabytes * 1e6
    assert upload <= 0.5 * 4 * values


@pytest.mark.parametrize("mode", ["both", "ffa", "sb"])
def test_fedshield_llm_sends_forty_times_as_much(mode: str) -> None:
    """Its ciphertexts hold 4,096 values; a tensor's last one is never shared with another's."""
    pytest.importorskip("tenseal", reason="needs the [baselines] extra")
    shapes = LLAMA_2_7B.shapes(mode, 64 if mode == "sb" else 32)
    fedshield = TensealCkks("code")
    (size,) = {a * b for a, b in shapes.values()}
    assert size % fedshield.slots == 0
    values = {"w": np.random.default_rng(1).normal(0, 1e-3, fedshield.slots).astype(np.float32)}
    one = len(fedshield.client().protect(values, {}, 0).data)
    theirs = one * (size // fedshield.slots) * len(shapes)
    assert theirs >= 40 * (planned(value_count(shapes)).upload_bytes + HEADER * len(shapes))


def test_what_is_planned_is_what_is_sent() -> None:
    """``sb`` of a 7B model at r = 64: the ciphertexts are as planned, and headers are short."""
    update = {
        name: np.zeros(shape, np.float32) for name, shape in LLAMA_2_7B.shapes("sb", 64).items()
    }
    plan = planned(262_144)
    keys = qn.keygen(plan.params)
    sent = qn.Encryptor(plan.params, keys.secret).encrypt(update, dict.fromkeys(update, 1.0))
    assert sent.ciphertexts == plan.ciphertexts
    assert 0 < len(sent.to_bytes()) - plan.upload_bytes < HEADER * len(update)


def test_a_client_of_a_round_sends_hardly_more() -> None:
    """It adds its mean magnitudes, of which the next round's clip bounds are made."""
    weights = {
        name: np.zeros(shape, np.float32) for name, shape in LLAMA_2_7B.shapes("sb", 64).items()
    }
    config = {"method": "quancrypt", "pruning": False, "clients": CLIENTS, "bits": 8}
    sent = Subject(config, weights, update_of(weights, seed=1)).sample()
    plan = planned(262_144)
    assert sent.upload < 1.05 * plan.upload_bytes
    assert sent.upload < 1e6
    assert sent.upload <= 0.5 * 4 * plan.values


def test_other_layers_than_those_of_7b() -> None:
    shapes = AdaptedLayers(layers=2, width=16, modules=("q_proj",)).shapes("both", 4)
    assert list(shapes.values()) == [(4, 16), (16, 4)] * 2
