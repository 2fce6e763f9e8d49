"""The server: a SuperLink, and what starts its ServerApps, kept running.

The two are separate processes on purpose: a ServerApp outlives its SuperLink, waits for the next
one, and the round goes on.
"""

from __future__ import annotations

import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from quancrypt_fl.deployment.events import EventLog, flower_line
from quancrypt_fl.deployment.kits import CLIENTS, KitError, ServerKit
from quancrypt_fl.deployment.processes import Launch, Program, Supervisor
from quancrypt_fl.deployment.sites import in_use, state_folder, superexec_secret
from quancrypt_fl.flower import programs

if TYPE_CHECKING:
    from quancrypt_fl.flower.control import Control, RegisteredNode

__all__ = ["SuperLink", "serve"]

_SUPERLINK, _SUPEREXEC = "superlink", "superexec"
_ATTEMPTS = 6  # starts of a SuperLink that fail in a row
_GRACE = 5.0  # seconds; it waits for open connections, and its database needs no farewell
_HEALTH_TIMEOUT = 2.0  # seconds
_NODES_EVERY = 5.0  # seconds
_LIFE = re.compile(r"\[Fleet\.(Activate|Deactivate)Node\] \w+ node_id=(\d+)")
# What Flower prints per request and step, and what our own lines say better.
_NOISE = re.compile(
    r"\[Fleet\.|ControlServicer\.|Start(ing|ed) |Finished task|All logs for run|FastAPI lifespan|"
    r"SuperLinkLifespan|Start `flwr|Successfully installed|Uvicorn running|Connection successful|"
    r"Created run|EXPERIMENTAL|retrying in|Run is finished|ApiError:(2004|2005|1008)|"
    r"terminated gracefully"
)


@dataclass
class SuperLink:
    """The SuperLink of a kit.

    Parameters
    ----------
    kit
        The server's kit.
    log
        Where events go.
    metrics
        ``HOST:PORT`` where a run's metrics are served, or None.
    """

    kit: ServerKit
    log: EventLog
    metrics: str | None = None

    def __post_init__(self) -> None:
        self._state = state_folder(self.kit.state)
        self._secret = superexec_secret(self._state)
        self._fronts = programs.write_fronts(self._state / "bin")
        self._ready = False
        self._names: dict[int, str] = {}
        self._status: dict[int, str] = {}
        self._looked = 0.0
        self._listed: tuple[int, int, int] | None = None  # version of the list in use
        self._admitted: set[str] | None = None  # who may connect
        self._warned: tuple[int, int, int] | None = None  # of the one that cannot be used
        self._control: Control | None = None

    def programs(self) -> list[Program]:
        """What is to be kept running."""
        return [
            Program(
                _SUPERLINK,
                self._superlink,
                lambda line: self._line(_SUPERLINK, line),
                on_end=self._died,
                attempts=_ATTEMPTS,
                grace=_GRACE,
            ),
            Program(_SUPEREXEC, self._superexec, lambda line: self._line(_SUPEREXEC, line)),
        ]

    def _superlink(self) -> Launch:
        kit = self.kit
        command = programs.command(
            "superlink",
            *("--host", kit.listen, "--port", str(kit.port)),
            *("--ssl-certfile", str(kit.certificate), "--ssl-keyfile", str(kit.private_key)),
            *("--ssl-ca-certfile", str(kit.ca)),
            *("--database", str(self._state / "flower.db")),
            *("--isolation", "process", "--superexec-auth-secret-file", str(self._secret)),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
        )
        return Launch(command, self._environment())

    def _superexec(self) -> Launch:
        command = programs.command(
            "superexec",
            *("--runtime-api-address", self.kit.local_address),
            *("--root-certificates", str(self.kit.ca)),
            *("--superexec-auth-secret-file", str(self._secret)),
        )
        made = self._environment()
        made["QUANCRYPT_STATE"] = str(self._state)
        made["QUANCRYPT_PARAMS"] = str(self.kit.params)
        made["QUANCRYPT_MEMBERS"] = str(self.kit.members)
        made["QUANCRYPT_JOINT"] = str(self.kit.joint or "")
        made["QUANCRYPT_INITIAL"] = str(self.kit.initial or "")
        made["QUANCRYPT_KEY_ID"] = self.kit.key_id
        made["QUANCRYPT_METRICS"] = self.metrics or ""
        return Launch(command, made, self._state)

    def _environment(self) -> dict[str, str]:
        return programs.environment(os.environ, self._state / "flower", fronts=self._fronts)

    def _line(self, source: str, line: str) -> None:
        level, text = flower_line(line)
        if not text:
            return
        if found := _LIFE.search(text):
            what, node = found[1], int(found[2])
            self._noted(node, "online" if what == "Activate" else "offline")
            return
        if _NOISE.search(text):
            level = "debug"
        self.log(source, text, level=level)

    def _died(self, status: int) -> None:
        del status
        self._ready = False
        self.close()

    def close(self) -> None:
        """End the connection to the SuperLink."""
        if self._control is not None:
            self._control.close()
            self._control = None

    # --- while it runs ---

    def tick(self) -> None:
        """Look whether it is ready, and then from time to time who is connected."""
        now = time.monotonic()
        if self._ready:
            if now - self._looked >= _NODES_EVERY:
                self._looked = now
                self._read_list()
                self._look()
            return
        if not _answers(f"https://{self.kit.local_address}/health", self.kit.ca):
            return
        self._reload()  # it may have changed while the SuperLink was away
        if self._register():
            self._ready = True
            self.log(
                _SUPERLINK,
                f"ready: clients reach it as {self.kit.address}",
                address=self.kit.address,
            )

    def _register(self) -> bool:
        """Let the kit's sites connect, and nobody else; False if that is to be tried again: the
        SuperLink is away, or a site was removed just now.
        """
        from quancrypt_fl.flower.control import Control, ControlUnavailableError

        self.close()
        self._control = Control(self.kit.local_address, self.kit.ca)
        keys = {site.name: site.public_key for site in self.kit.sites}
        try:
            ids = self._control.register_only(keys)
        except (ControlUnavailableError, FileNotFoundError):
            return False
        self._tell(set(ids))
        self._names = {node: name for name, node in ids.items()}
        self._status = {node: one for node, one in self._status.items() if node in self._names}
        return True

    def _tell(self, names: set[str]) -> None:
        """Say who may connect from now on, and who no longer; nothing at the first start."""
        before, self._admitted = self._admitted, names
        if before is None:
            return
        for name in sorted(names - before):
            self.log("server", f"{name} may connect from now on", client=name)
        for name in sorted(before - names):
            self.log("server", f"{name} may no longer connect", client=name)

    def _list_version(self) -> tuple[int, int, int] | None:
        try:
            facts = (self.kit.folder / CLIENTS).stat()
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    def _reload(self) -> bool:
        """Take the kit's list of clients as it is now; False if it cannot be used."""
        version = self._list_version()
        try:
            loaded = ServerKit.load(self.kit.folder)
        except KitError as error:
            self._not_in_use(version, error)
            return False
        self.kit = replace(self.kit, sites=loaded.sites, config=loaded.config)
        return True

    def _read_list(self) -> None:
        """Let clients connect that were added to the kit meanwhile, and shut out removed ones."""
        from quancrypt_fl.flower.control import ControlError

        version = self._list_version()
        if version == self._listed:
            return
        if not self._reload():
            self._listed = version  # those of before stay
            return
        try:
            registered = self._register()
        except ControlError as error:
            self._not_in_use(version, error)
            return  # again: who was removed must not stay
        if registered:
            self._listed = version

    def _not_in_use(self, version: tuple[int, int, int] | None, error: Exception) -> None:
        if version is None or version != self._warned:
            self._warned = version  # told once
            self.log("server", f"the new list of clients is not in use: {error}", level="warning")

    def _look(self) -> None:
        """Nodes whose heartbeats stopped are told nowhere else."""
        from quancrypt_fl.flower.control import ControlError

        assert self._control is not None
        try:
            nodes = self._control.nodes()
        except ControlError:
            return  # it is starting again
        for node in nodes:
            self._noted_node(node)

    def _noted_node(self, node: RegisteredNode) -> None:
        self._names.setdefault(node.node, node.name)
        if node.status in ("online", "offline"):
            self._noted(node.node, node.status)

    def _noted(self, node: int, status: str) -> None:
        if self._status.get(node, "offline") == status:
            return
        self._status[node] = status
        name = self._names.get(node, f"node {node}")
        connected = sum(one == "online" for one in self._status.values())
        what = "connected" if status == "online" else "is gone"
        self.log(
            "server",
            f"{name} {what}; {connected} of {len(self.kit.sites)} clients are connected",
            level="info" if status == "online" else "warning",
            client=name,
            node=str(node),
            connected=connected,
        )


def serve(kit: ServerKit, log: EventLog, *, metrics: str | None = None) -> int:
    """Run the server of a kit until a signal; the signal's number."""
    with in_use(kit.state, "quancrypt server"):
        superlink = SuperLink(kit, log, metrics)
        # The SuperLink waits for connections to end, ours among them.
        return Supervisor(
            log, superlink.programs(), tick=superlink.tick, before_end=superlink.close
        ).run()


def _answers(url: str, ca: Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca))
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=_HEALTH_TIMEOUT) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
