"""A client: a SuperNode, and what starts its ClientApps, kept running.

The passphrase is in the environment of the second alone, from which ClientApps inherit it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quancrypt_fl.deployment.events import EventLog, flower_line
from quancrypt_fl.deployment.kits import ClientKit
from quancrypt_fl.deployment.processes import Backoff, Launch, Program, Supervisor
from quancrypt_fl.deployment.sites import (
    StateError,
    free_port,
    in_use,
    state_folder,
    superexec_secret,
)
from quancrypt_fl.flower import programs

__all__ = ["ClientOptions", "SuperNode", "join", "node_config_text"]

_SUPERNODE, _SUPEREXEC = "supernode", "superexec"
_NODE = "node-id"
_RELEASE_TIMEOUT = 15.0  # seconds
_CONNECTED = re.compile(r"SuperNode ID: (\d+)")
_MESSAGE = re.compile(r"Receiving: (\S+) message")
_NOISE = re.compile(
    r"^\[RUN|^Received successfully|^Sen(ding|t)|Start(ing|ed) |FastAPI lifespan|Start `flwr|"
    r"Successfully installed|Uvicorn running|Waiting for application|Application |Shutting down|"
    r"Finished server|Connection successful|^Exit Code|For more information|EXPERIMENTAL|"
    r"terminated gracefully|^Run ID \d+ is not in|^Failed to initialize|^The SuperNode could not"
)


@dataclass(frozen=True)
class ClientOptions:
    """What a site decides.

    Attributes
    ----------
    key_file, signing_file, channel_file, passphrase
        The kit's keys, sealed for this run, and what opens them; no channel key without a threshold
        key.
    bundles
        Digests of the app bundles that it runs.
    data_dir
        Folder of its data: images.
    model, data
        To tune a language model: folder of the base model, and the data.
    own_data
        Train on all that is there, not on this client's part of the data set.
    task_timeout
        Seconds after which a task is ended; None: never.
    """

    key_file: Path
    signing_file: Path
    passphrase: str = field(repr=False)
    bundles: Sequence[str]
    data_dir: Path | None = None
    own_data: bool = False
    task_timeout: float | None = None
    channel_file: Path | None = None
    model: Path | None = None
    data: Path | None = None


@dataclass
class SuperNode:
    """The SuperNode of a kit."""

    kit: ClientKit
    options: ClientOptions
    log: EventLog

    def __post_init__(self) -> None:
        self._state = state_folder(self.kit.state)
        self._secret = superexec_secret(self._state)
        self._fronts = programs.write_fronts(self._state / "bin")
        self._node_file = self._state / _NODE
        self._port = 0
        self._waiting = False

    def programs(self) -> list[Program]:
        """What is to be kept running."""
        return [
            Program(
                _SUPERNODE,
                self._supernode,
                lambda line: self._line(_SUPERNODE, line),
                on_end=self._died,
                together=(_SUPEREXEC,),
                backoff=Backoff(first=1.0, most=15.0),
            ),
            Program(_SUPEREXEC, self._superexec, lambda line: self._line(_SUPEREXEC, line)),
        ]

    def _supernode(self) -> Launch:
        kit = self.kit
        self._port = free_port()
        command = programs.command(
            "supernode",
            *("--superlink", kit.address, "--root-certificates", str(kit.ca)),
            *("--auth-supernode-private-key", str(kit.auth_key)),
            *("--node-config", node_config_text(self._node_config())),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self._secret)),
        )
        return Launch(command, self._environment())

    def _superexec(self) -> Launch:
        command = programs.command(
            "superexec",
            *("--insecure", "--runtime-api-address", f"127.0.0.1:{self._port}"),
            *("--superexec-auth-secret-file", str(self._secret)),
        )
        made = self._environment()
        made[programs.PASSPHRASE] = self.options.passphrase
        made["QUANCRYPT_BUNDLES"] = ",".join(self.options.bundles)
        limit = self.options.task_timeout
        made["QUANCRYPT_TASK_TIMEOUT"] = "" if limit is None else f"{limit:g}"
        return Launch(command, made, self._state)

    def _environment(self) -> dict[str, str]:
        return programs.environment(os.environ, self._state / "flower", fronts=self._fronts)

    def _node_config(self) -> dict[str, str | int]:
        config: dict[str, str | int] = dict(self.kit.node_config())
        config["quancrypt-key"] = str(self.options.key_file)
        config["quancrypt-signing-key"] = str(self.options.signing_file)
        if self.options.channel_file is not None:
            config["quancrypt-channel-key"] = str(self.options.channel_file)
        for name, path in (
            ("data-dir", self.options.data_dir),
            ("model", self.options.model),
            ("data", self.options.data),
        ):
            if path is not None:
                # What is no path is the name of a data set that needs no files.
                config[name] = str(path.absolute() if path.exists() else path)
        if self.options.own_data:
            config["quancrypt-data"] = "all"
        return config

    def _line(self, source: str, line: str) -> None:
        level, text = flower_line(line)
        if not text:
            return
        if found := _CONNECTED.search(text):
            self._node_file.write_text(found[1] + "\n")
            self._waiting = False
            self.log("client", f"{self.kit.name} is connected to {self.kit.address}", node=found[1])
            return
        if found := _MESSAGE.search(text):
            self.log("client", f"{self.kit.name} was asked to {found[1]}", task=found[1])
            return
        if "Failed to activate SuperNode" in text:
            self.log(
                "client",
                f"{self.kit.address} does not let {self.kit.name} connect: it does not know the "
                "key of this kit yet, or takes an earlier connection with it to be alive",
                level="warning",
            )
            return
        if "retrying in" in text:
            if source == _SUPERNODE and not self._waiting:
                self._waiting = True
                self.log("client", f"{self.kit.address} does not answer; trying again")
            level = "debug"
        elif _NOISE.search(text):
            level = "debug"
        self.log(source, text, level=level)

    def _died(self, status: int) -> None:
        if status < 0:  # killed: it could not sign off
            self.release()

    def release(self) -> None:
        """Sign off in the place of a SuperNode that was killed, so that the next may connect."""
        try:
            node = int(self._node_file.read_text())
        except (OSError, ValueError):
            return  # it was never connected
        command = [
            *(sys.executable, "-m", "quancrypt_fl.flower.release"),
            *("--superlink", self.kit.address, "--root-certificates", str(self.kit.ca)),
            *("--key", str(self.kit.auth_key), "--node", str(node)),
        ]
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_RELEASE_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return
        if done.returncode == 0:
            self.log("client", f"{self.kit.name} is signed off in its place", level="debug")


def join(kit: ClientKit, options: ClientOptions, log: EventLog) -> int:
    """Run the client of a kit until a signal; the signal's number."""
    with in_use(kit.state, "quancrypt client"):
        node = SuperNode(kit, options, log)
        node.release()  # of an earlier start, if this machine went down with it
        return Supervisor(log, node.programs()).run()


def node_config_text(config: Mapping[str, str | int | float | bool]) -> str:
    """What ``flower-supernode --node-config`` takes.

    Raises
    ------
    StateError
        If Flower has no way to write a value.
    """
    return " ".join(f"{name}={_toml(name, value)}" for name, value in config.items())


def _toml(name: str, value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if not value.isprintable() or ("'" in value and ('"' in value or "\\" in value)):
        raise StateError(
            f"{name}: {value!r} has characters that Flower's node configuration cannot hold; "
            "choose another folder"
        )
    return f'"{value}"' if "'" in value else f"'{value}'"
