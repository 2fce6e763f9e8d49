"""Pre-training on a real text: what encryption costs, and what synchronous training would send."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fl.conftest import SHARED_DATA

from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_run import Pretraining

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plays() -> dict[str, Any]:
    """Four clients with different plays, and a GPT-2 of a quarter of a million values."""
    path = SHARED_DATA / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        pytest.skip(f"the text is not in {path}")
    return {
        "data": path, "partition": "contiguous", "vocabulary": "characters", "layers": 2,
        "width": 96, "heads": 4, "sequence_length": 64, "clients": 4, "rounds": 5,
        "local_steps": 100, "lr": 3e-3, "warmup_steps": 20, "max_test_samples": 300, "threads": 1,
    }  # fmt: skip


def test_diloco_is_as_good_under_encryption(plays: dict[str, Any]) -> None:
    clear = Pretraining(PretrainConfig(**plays, method="vanilla", baseline="ddp")).run()
    eight = Pretraining(PretrainConfig(**plays)).run()
    four = Pretraining(PretrainConfig(**plays, bits=4, error_feedback=True)).run()
    losses = [results["totals"]["test_loss"] for results in (clear, eight, four)]
    synchronous = clear["data_parallel"]["rounds"][-1]["test_loss"]
    times = [results["data_parallel"]["times_ours"]["both"] for results in (eight, four)]
    print(
        f"loss: in the clear {losses[0]:.4f}, 8 bits {losses[1]:.4f}, 4 bits {losses[2]:.4f}, "
        f"data parallel {synchronous:.4f}; bytes of it over ours: 8 bits {times[0]:.0f}, "
        f"4 bits {times[1]:.0f}"
    )
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[2] == pytest.approx(losses[0], rel=0.02)
    assert losses[0] < clear["rounds"][0]["test_loss"] - 0.1
    assert times[0] > 150
    assert times[1] > times[0]
    tokens = {results["totals"]["tokens"] for results in (clear, eight, four)}
    assert tokens == {clear["data_parallel"]["tokens"]}
