"""A run as its observers see it, without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quancrypt_fl.flower.observing import RunObserver
from quancrypt_fl.flower.run_status import RunStatus

TRAINING = "0123456789abcdef" * 2
NODES = {2**63 + 7: "Berlin", 2**63 + 8: "Uppsala", 12: "Porto"}
FACTS = {"agreement": {"method": "quancrypt", "bits": 8}, "params": "qcp:1234"}


def record(round_: int, **changes: Any) -> dict[str, Any]:
    """An entry of ``results.json``, as the strategy makes it."""
    return {
        "round": round_,
        "test_accuracy": 1 - 0.5 / round_,
        "test_loss": 1.0 / round_,
        "train_loss": 1.5 / round_,
        "pruning_rate": 0.1,
        "seconds": {"train": 3.0, "protect": 0.5, "aggregate": 0.2, "unprotect": 0.1,
                    "evaluate": 0.3, "key": 0.0, "wall": 4.0},
        "bytes": {"upload": 1_000, "download": 2_000},
        "participants": 3,
        "lost": 0,
        "ciphertexts": 2,
        "weight": 16,
        "failed": None,
        "clients": [
            {"name": name, "node": str(node), "weight": 5, "samples": 100,
             "seconds": {"train": 1.0, "protect": 0.1, "unprotect": 0.05, "key": 0.0}}
            for node, name in NODES.items()
        ],
        "metrics": {"accuracy": 0.5},
    } | changes  # fmt: skip


def begin(observer: RunObserver, rounds: int = 3, finished: int = 0) -> None:
    observer.run_started(training=TRAINING, rounds=rounds, finished=finished, facts=FACTS)


def ask(observer: RunObserver, round_: int) -> None:
    observer.round_started(round=round_, asked=NODES)
    observer.phase_started(round=round_, phase="train+upload", asked=list(NODES))


def answer(observer: RunObserver, round_: int, *nodes: int) -> None:
    for node in nodes or NODES:
        observer.answered(
            round=round_, phase="train+upload", node=node, name=NODES[node],
            seconds={"train": 1.5, "protect": 0.25}, nbytes=1_000,
        )  # fmt: skip


def whole_round(observer: RunObserver, round_: int, **changes: Any) -> None:
    ask(observer, round_)
    answer(observer, round_)
    observer.round_finished(record(round_, **changes))


LOST = {"node": list(NODES)[2], "name": "Porto", "reason": "did not answer in 5 s"}


def middle() -> RunStatus:
    """A run in its second round: one client has answered, one is lost, one is asked."""
    run = RunStatus(clock=lambda: 1_000.0)
    begin(run)
    whole_round(run, 1)
    ask(run, 2)
    answer(run, 2, next(iter(NODES)))
    run.lost(round=2, phase="train+upload", **LOST)
    return run


def put(folder: Path, document: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "status.json"
    new = folder / ".new"
    new.write_text(json.dumps(document))
    new.replace(path)
    return path
