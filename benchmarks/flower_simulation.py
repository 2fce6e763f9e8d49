"""``python flower_simulation.py --clients 200 --model cnn``: encrypted rounds on Flower and Ray.

Many clients on one machine, by Flower's own simulation on Ray, with the mod and the strategy that a
deployment uses. Prints a JSON document: seconds of each round, and the memory of all processes of
the run. Linux only. The run is a process of its own, and so is each of Ray's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

IMAGES = {"digits": (1, 8, 8), "mnist": (1, 28, 28)}
MARK = "SIMULATED_RUN"  # environment variable that all processes of a run inherit
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "QUANCRYPT_NUM_THREADS": "1",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="mnist")
    parser.add_argument("--data-dir", help="MNIST's files; without it, noise of the same shape")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--samples", type=int, default=32, help="of each client")
    parser.add_argument("--weighting", default="integer")
    parser.add_argument("--plain", action="store_true", help="FedAvg without encryption")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--state", action="store_true", help="clients keep their state in folders")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the run, in a process of its own ---


def inside(workers: int) -> None:
    from flwr.simulation import run_simulation
    from simulated_app import client_app, server_app

    choices = json.loads(os.environ["SIMULATED_APP"])
    run_simulation(
        server_app,
        client_app,
        num_supernodes=choices["clients"],
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": workers, "object_store_memory": 2**28},
        },
    )


# --- around it ---


def measure(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import quancrypt_native as qn
    from quancrypt_fl.models import build_model

    report = folder / "report.json"
    model = build_model(wanted.model, IMAGES[wanted.dataset], classes=10)
    params = qn.Parameters.for_aggregation(
        bits=8,
        max_weight=1 << (wanted.clients - 1).bit_length(),
        key_mode="symmetric",
        values=sum(tensor.numel() for tensor in model.parameters()),
    )
    (folder / "params.bin").write_bytes(params.to_bytes())
    secret = qn.keygen(params).secret
    (folder / "secret.key").write_bytes(secret.to_bytes(passphrase=b"of a simulation"))
    choices = {
        **{name: getattr(wanted, name) for name in (
            "clients", "rounds", "dataset", "data_dir", "model", "samples", "weighting",
            "plain")},
        "params": str(folder / "params.bin"),
        "report": str(report),
    }  # fmt: skip
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(folder / "flwr"),
        "RAY_TMPDIR": str(folder),
        "QUANCRYPT_KEY": str(folder / "secret.key"),
        "QUANCRYPT_PASSPHRASE": "of a simulation",
        "SIMULATED_APP": json.dumps(choices),
        MARK: str(folder),
    }
    if wanted.state:
        environment["QUANCRYPT_STATE"] = str(folder / "states")
    log = folder / "log.txt"
    started = time.perf_counter()
    with log.open("wb") as stream:
        run = subprocess.Popen(
            [sys.executable, __file__, "--inside", "--workers", str(wanted.workers)],
            env=environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            memory = watch(run, folder)
        finally:
            end_all(folder)
    if run.returncode or not report.exists():
        tail = log.read_text(errors="replace")[-4000:]
        raise SystemExit(f"the simulation ended with {run.returncode}:\n{tail}")
    found = json.loads(report.read_text())
    for record in found["records"]:
        record["weights"] = sorted({client["weight"] for client in record.pop("clients")})
    return {
        **found,
        "wall_seconds": time.perf_counter() - started,
        "params": {"max_weight": params.max_weight, "poly_degree": params.poly_degree},
        "memory": memory,
    }


def watch(run: subprocess.Popen[bytes], folder: Path) -> dict[str, int]:
    """Wait for the end; peaks in bytes, of the server's process and of all together."""
    peaks = {"server": 0, "all": 0, "processes": 0}
    while run.poll() is None:
        held = {pid: proportional(pid) for pid in ours(folder)}
        peaks["server"] = max(peaks["server"], held.get(run.pid, 0))
        peaks["all"] = max(peaks["all"], sum(held.values()))
        peaks["processes"] = max(peaks["processes"], len(held))
        time.sleep(0.5)
    return peaks


def ours(folder: Path) -> list[int]:
    """Processes that carry the run's mark."""
    mark, found = f"{MARK}={folder}".encode(), []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
            except OSError:  # gone, or another user's
                continue
    return found


def proportional(pid: int) -> int:
    """Bytes of a process; pages that several share count once in their sum."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(s.split()[1]) << 10 for s in text.splitlines() if s.startswith("Pss:")), 0)


def end_all(folder: Path) -> None:
    """End what is left of the run; Ray's helpers end by themselves a little later."""
    until = time.monotonic() + 10
    while (left := ours(folder)) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def main() -> None:
    wanted = arguments()
    if wanted.inside:
        inside(wanted.workers)
        return
    with tempfile.TemporaryDirectory(prefix="sim-") as folder:
        print(json.dumps(measure(wanted, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
