"""A large federation in bounded memory: 100 clients, ResNet18, one encrypted round."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LIMIT = 6 << 30

ROUND = """
import json, resource
from quancrypt_fl import QuanCryptConfig, Simulation

config = QuanCryptConfig(dataset="digits", model="resnet18", clients=100, rounds=1, local_epochs=1)
results = Simulation(config).run()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"peak": peak, "round": results["rounds"][0], "totals": results["totals"]}))
"""


@pytest.mark.slow
def test_a_hundred_clients_with_resnet18_fit() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROUND], capture_output=True, text=True, check=True, timeout=1800
    )
    found = json.loads(done.stdout)
    assert found["round"]["participants"] == 100
    update = found["totals"]["float32_update_bytes"]
    assert update > 40e6
    assert found["peak"] < LIMIT
    assert found["peak"] < 100 * update  # so they were not all in memory
