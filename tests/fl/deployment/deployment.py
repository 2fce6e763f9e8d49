"""A whole deployment on loopback: server, clients and a training, each in processes of its own.

TLS, SuperNode authentication, separate folders: what an operator starts, and nothing of it mocked.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import load_file

from quancrypt_fl.deployment.sites import free_port
from quancrypt_fl.deployment.trees import Member, descendants, is_running

PASSPHRASE = "correct horse battery"
START, TRAINING, END = 90.0, 900.0, 40.0  # seconds
POLL = 0.02  # seconds

T = TypeVar("T")


def quancrypt(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "quancrypt_fl", *map(str, arguments)]


@dataclass
class Deployment:
    """The kits of a deployment, and its processes.

    Attributes
    ----------
    folder
        Of the kits, the logs and the results.
    options
        Of ``quancrypt provision``.
    data
        Folder of the data set's files; digits need none.
    environment
        What the processes get beside this one's.
    running
        Processes by name: ``server``, ``client-1`` and so on, ``run``.
    """

    folder: Path
    clients: int
    options: list[str]
    data: Path | None = None
    environment: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kits = self.folder / "kits"
        self.environment = {
            **os.environ,
            "QUANCRYPT_PASSPHRASE": PASSPHRASE,
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            **self.environment,
        }
        self.port = free_port()
        place = ["--server-address", f"localhost:{self.port}", "--out", str(self.kits)]
        command = quancrypt("provision", "--clients", self.clients, *place, *self.options)
        done = subprocess.run(command, env=self.environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    # --- start ---

    @property
    def names(self) -> list[str]:
        """Names of the clients."""
        return [f"client-{number}" for number in range(1, self.clients + 1)]

    def start(self, name: str) -> None:
        """Start the server or a client, for the first time or again."""
        data = ["--data-dir", self.data] if self.data and name != "server" else []
        self._start(name, "server" if name == "server" else "client", self.kits / name, *data)

    def start_all(self) -> None:
        self.start("server")
        self.wait_for_port()
        for name in self.names:
            self.start(name)

    def start_run(self, *arguments: object) -> None:
        """Start a training, or with ``--resume`` go on with it."""
        kit, out = self.kits / "server", self.folder / "results"
        self._start("run", "run", kit, "--out", out, "--wait", 120, *arguments)

    def _start(self, name: str, *arguments: object) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                quancrypt(*arguments), env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    @contextmanager
    def training(self, *arguments: object) -> Iterator[None]:
        """A training, which must be completed when the block is left."""
        self.start_run(*arguments)
        yield
        self.finish_run()

    def finish_run(self) -> None:
        """Wait for the end of the training, which must be a good one."""
        assert self.running["run"].wait(TRAINING) == 0, self.everything()
        del self.running["run"]

    def interrupt_run(self) -> None:
        """Stop the training by SIGTERM; ``--resume`` goes on with it."""
        run = self.running.pop("run")
        run.send_signal(signal.SIGTERM)
        assert run.wait(START) == 130, self.everything()

    def wait_for_port(self) -> None:
        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        self.wait_for(listens, "the server to listen", START)

    def wait_for(self, ask: Callable[[], T], what: str, seconds: float = TRAINING) -> T:
        """Wait until ``ask`` gives something true, and return it; a training that ended fails."""
        deadline = time.monotonic() + seconds
        while not (found := ask()):
            run = self.running.get("run")
            over = run is not None and run.poll() is not None
            assert not over, f"the run ended before {what}\n{self.everything()}"
            assert time.monotonic() < deadline, f"waited for {what}\n{self.everything()}"
            time.sleep(POLL)
        return found

    # --- look ---

    @property
    def run_folder(self) -> Path:
        """Of the first run, in the server's state."""
        return self.kits / "server/state/runs/run-1"

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def everything(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-6000:]}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def results(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.folder / "results/results.json").read_bytes())
        return document

    def models(self) -> list[dict[str, np.ndarray]]:
        """The final model of each client."""
        found = sorted(self.kits.glob("client-*/state/**/model.safetensors"))
        return [load_file(path) for path in found]

    # --- end ---

    def kill(self, *names: str) -> None:
        """SIGKILL processes with all that they started, as if their machine had lost its power.

        Everything is stopped first: nothing starts something new, or takes note of another's end.
        """
        roots = [self.running.pop(name) for name in names]
        stopped: set[Member] = set()
        found = {member for root in roots for member in _stop(root.pid)}
        while found - stopped:
            stopped |= found
            found = {member for root in roots for member in _stop(root.pid)}
        for pid in (*(member.pid for member in stopped), *(root.pid for root in roots)):
            _signal(pid, signal.SIGKILL)
        for root in roots:
            assert root.wait(END) == -signal.SIGKILL
        self.wait_for(lambda: not any(map(is_running, stopped)), f"the end of {names}", END)

    def end(self) -> None:
        """End all that is running as an operator does."""
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _stop(pid: int) -> set[Member]:
    """Stop a process and those that it started, which are returned."""
    _signal(pid, signal.SIGSTOP)
    found = set(descendants(pid))
    for member in found:
        _signal(member.pid, signal.SIGSTOP)
    return found


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def assert_same_model(found: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
