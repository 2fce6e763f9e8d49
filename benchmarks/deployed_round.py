"""``python benchmarks/deployed_round.py --data-dir DIR``: what encryption adds to a deployed round.

Deploys a server and clients on this machine (TLS, SuperNode authentication, the built-in app with
clocks on it), trains encrypted and then under Flower's FedAvg in the clear, and prints where the
time of a round goes: training, evaluation, ours, and the rest, which is Flower's.

Ours is all that FedAvg has no need of: everything in ``quancrypt_mod`` but the user's app (opening
the key, decrypting and applying the sum, clipping, quantizing, encrypting, state on disk), the
imports for it, and everything that the server does while it neither waits nor is in Flower's hands
(parse and add, ledger, history, status). Of each exchange the slowest client counts, and the
server's time in full, though much of it passes while clients still train. Linux.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the deployment of the tests

from tests.fl.deployment.deployment import TRAINING, Deployment, quancrypt  # noqa: E402

from quancrypt_fl.bench.machine import describe_machine  # noqa: E402
from quancrypt_fl.bench.tables import machine_line  # noqa: E402
from quancrypt_fl.deployment.kits import ServerKit  # noqa: E402
from quancrypt_fl.deployment.runs import builtin_settings  # noqa: E402

APP = Path(__file__).with_name("deployed_round_app")
EXCHANGES = ("train", "evaluate")
PHASES = ("key", "unprotect", "protect")
Line = dict[str, Any]


class Timed(Deployment):
    """A deployment whose clients also run the app with clocks."""

    def start(self, name: str) -> None:
        if name == "server":
            super().start(name)
            return
        data = ["--data-dir", self.data] if self.data else []
        self._start(name, "client", self.kits / name, "--app", APP, *data)

    def measure(self, folder: Path, *, plain: bool, rounds: int) -> dict[str, list[Line]]:
        """One run, encrypted or plain; the lines that its server and clients wrote."""
        kit = ServerKit.load(self.kits / "server")
        settings = builtin_settings(
            kit, "plain" if plain else "timed", rounds=rounds, timeout=TRAINING, wait=120.0,
            snapshot_every=10,
        )  # fmt: skip
        choices = [f"quancrypt-run={json.dumps(settings)}", f"plain={str(plain).lower()}"]
        options = [word for choice in choices for word in ("--set", choice)]
        done = subprocess.run(
            quancrypt("run", kit.folder, "--app", APP, *options),
            env=self.environment, capture_output=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{done.stderr.decode()[-3000:]}\n{self.everything()}")
        found = {}
        for side in ("server", "clients"):
            path = folder / f"{side}.jsonl"
            found[side] = [json.loads(line) for line in path.read_text().splitlines()]
            path.unlink()
        return found


def rounds_of(lines: dict[str, list[Line]]) -> list[Line]:
    """Seconds of each round by part; the first round has messages that the others do not have."""
    clients: dict[tuple[int, str], list[Line]] = defaultdict(list)
    for line in lines["clients"]:
        clients[line["round"], line["kind"]].append(line)
    rounds = []
    for before, after in zip(lines["server"], lines["server"][1:], strict=False):
        assert after["failed"] is None, after
        wall = after["at"] - before["at"]
        server = wall - (after["away"] - before["away"])
        row: Line = {"round": after["round"], "wall": wall, **dict.fromkeys(PHASES, 0.0)}
        row |= {"bytes": after["bytes"], "rest": 0.0, "imports": 0.0}
        for exchange in EXCHANGES:
            messages = clients[after["round"], exchange]
            row[exchange] = max(line["app"] for line in messages)
            slowest = max(messages, key=lambda m: m["total"] - m["app"] + m["imports"])
            phases = {name: slowest["phases"].get(name, 0.0) for name in PHASES}
            for name, seconds in phases.items():
                row[name] += seconds
            row["imports"] += slowest["imports"]
            row["rest"] += slowest["total"] - slowest["app"] - sum(phases.values())
        row["add"] = after["seconds"].get("aggregate", 0.0)
        row["keep"] = server - row["add"]
        ours = (*PHASES, "rest", "imports", "add", "keep")
        row["ours"] = sum(row[name] for name in ours)
        row["flower"] = wall - row["train"] - row["evaluate"] - row["ours"]
        rounds.append(row)
    return rounds


LABELS = {
    "wall": "the round",
    "train": "training (the app), slowest client",
    "evaluate": "evaluation (the app), slowest client",
    "flower": "Flower: processes, transport, waiting",
    "ours": "**ours**",
    "key": "– open the key",
    "unprotect": "– decrypt the sum, rebuild the model",
    "protect": "– form, clip, quantize, encrypt",
    "rest": "– state on disk, headers",
    "imports": "– imports",
    "add": "– server: parse and add",
    "keep": "– server: requests, ledger, history, status",
}


def table(rounds: list[Line]) -> str:
    """Medians over rounds: seconds, and the share of the round."""
    rows = ["| part | seconds | share |", "| --- | ---: | ---: |"]
    for name, label in LABELS.items():
        seconds = statistics.median(row[name] for row in rounds)
        share = statistics.median(row[name] / row["wall"] for row in rounds)
        rows.append(f"| {label} | {seconds:.3f} | {share:.1%} |")
    return "\n".join(rows)


def report(found: Line) -> str:
    encrypted, plain = found["encrypted"][1:], found["plain"][1:]
    shares = [row["ours"] / row["wall"] for row in encrypted]
    both = [statistics.median(row["wall"] for row in rows) for rows in (encrypted, plain)]
    sizes = [
        f"{rows[-1]['bytes']['upload']:,} bytes up and {rows[-1]['bytes']['download']:,} down"
        for rows in (encrypted, plain)
    ]
    about = found["machine"]
    return "\n".join(
        [
            f"{machine_line(about)} · {about['cpus']} CPUs, load {about['load']:.1f} at the start",
            f"{found['clients']} clients, {found['dataset']}, {found['model']}: medians of rounds "
            f"2 to {len(encrypted) + 1}",
            "",
            table(encrypted),
            "",
            f"encryption's share of a round: {statistics.median(shares):.1%} "
            f"({min(shares):.1%} to {max(shares):.1%})",
            f"a round, encrypted: {both[0]:.2f} s, {sizes[0]} a client",
            f"a round of FedAvg: {both[1]:.2f} s, {sizes[1]} a client",
            f"encrypted / FedAvg: {both[0] / both[1]:.3f}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=8, help="of each kind, 2 or more")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set; digits need none")
    parser.add_argument("--train-samples", type=int, help="use only so many")
    parser.add_argument("--json", type=Path, help="all rounds, as a file")
    wanted = parser.parse_args()
    if wanted.rounds < 2:
        parser.error(f"--rounds {wanted.rounds}: allowed: 2 or more; the first is left out")
    options = ["--dataset", wanted.dataset, "--model", wanted.model, "--rounds", str(wanted.rounds)]
    if wanted.train_samples:
        options += ["--max-train-samples", str(wanted.train_samples)]
    found: Line = {
        "machine": describe_machine(), "time": time.strftime("%Y-%m-%d"),
        "clients": wanted.clients, "dataset": wanted.dataset, "model": wanted.model,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="deployed-") as name:
        folder = Path(name)
        deployment = Timed(
            folder, wanted.clients, options, wanted.data_dir, {"DEPLOYED_ROUND": name}
        )
        try:
            deployment.start_all()
            for kind in ("encrypted", "plain"):
                lines = deployment.measure(folder, plain=kind == "plain", rounds=wanted.rounds)
                found[kind] = rounds_of(lines)
        finally:
            deployment.end()
    if wanted.json:
        wanted.json.write_text(json.dumps(found, indent=1))
    print(report(found))


if __name__ == "__main__":
    main()
