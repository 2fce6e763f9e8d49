"""A SuperLink's Control interface, for what a deployment does with it: nodes and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from quancrypt_fl.errors import FederatedError
from quancrypt_fl.flower.bundles import AppBundle

__all__ = ["Control", "ControlError", "ControlUnavailableError", "RegisteredNode", "RunState"]

Value = str | int | float | bool


class ControlError(FederatedError):
    """The SuperLink refuses what it was asked for."""


class ControlUnavailableError(ControlError):
    """The SuperLink cannot be reached."""


@dataclass(frozen=True)
class RegisteredNode:
    """A SuperNode that the SuperLink knows; ``status``: registered, online or offline."""

    node: int
    name: str
    status: str
    public_key: bytes


@dataclass(frozen=True)
class RunState:
    """``status``: pending, starting, running, completed, failed or stopped."""

    status: str
    details: str

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("completed", "failed", "stopped")


class Control:
    """A connection; a context manager.

    Parameters
    ----------
    address
        ``HOST:PORT`` of the SuperLink, from its own machine.
    ca
        Certificate by which it is known.
    """

    def __init__(self, address: str, ca: Path) -> None:
        self._address = address
        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca.read_bytes(),
            interceptors=[
                CliClientHttpInterceptor(),
                RuntimeVersionHttpInterceptor(component_name="flwr CLI"),
            ],
        )

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- nodes ---

    def nodes(self) -> list[RegisteredNode]:
        """All SuperNodes that are registered."""
        with self._errors():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            RegisteredNode(node.node_id, node.name, node.status, node.public_key)
            for node in found
            if node.status != "unregistered"
        ]

    def register_only(self, keys: Mapping[str, Path]) -> dict[str, int]:
        """Let the SuperNodes with these keys connect, and no others.

        Parameters
        ----------
        keys
            From a name to the file of a public key.

        Returns
        -------
        dict
            Node ids by name.
        """
        wanted = {_public_key(path): name for name, path in keys.items()}
        there = {node.public_key: node for node in self.nodes()}
        ids = {}
        with self._errors():
            for key, node in there.items():
                if key not in wanted:
                    self._client.UnregisterNode(UnregisterNodeRequest(node_id=node.node))
            for key, name in wanted.items():
                if key in there:
                    ids[name] = there[key].node
                    continue
                request = RegisterNodeRequest(public_key=key, name=name)
                ids[name] = self._client.RegisterNode(request).node_id
        return ids

    # --- runs ---

    def start(self, bundle: AppBundle, settings: Mapping[str, Value]) -> int:
        """Start a run of an app; the run's id.

        Parameters
        ----------
        settings
            Values of keys in the app's run configuration.
        """
        request = StartRunRequest(
            fab=fab_to_proto(Fab(bundle.digest, bundle.content, {})),
            override_config=user_config_to_proto(dict(settings)),
        )
        with self._errors():
            response = self._client.StartRun(request)
        if not response.HasField("run_id"):
            raise ControlError("the SuperLink did not start the run; its log says why")
        return int(response.run_id)

    def state(self, run: int) -> RunState:
        """How a run is."""
        with self._errors():
            found = self._client.ListRuns(ListRunsRequest(run_id=run)).run_dict
        if run not in found:
            raise ControlError(f"the SuperLink knows no run {run}")
        status = found[run].status
        return RunState(status.sub_status or status.status, status.details)

    def unfinished(self) -> list[int]:
        """Runs that are not over."""
        with self._errors():
            found = self._client.ListRuns(ListRunsRequest()).run_dict
        return [run for run, facts in found.items() if facts.status.status != "finished"]

    def stop(self, run: int) -> None:
        """Stop a run."""
        with self._errors():
            self._client.StopRun(StopRunRequest(run_id=run))

    def logs(self, run: int, after: float, take: Callable[[str], Any]) -> float:
        """Hand on what the run's ServerApp prints, until the run is over.

        Parameters
        ----------
        after
            Time stamp of the last text that is known; 0: from the start.
        take
            Gets the text, piece by piece.

        Returns
        -------
        float
            Time stamp of the last text; also where the connection breaks off.
        """
        try:
            for part in self._client.StreamLogs(
                StreamLogsRequest(run_id=run, after_timestamp=after)
            ):
                take(part.log_output)
                after = max(after, part.latest_timestamp)
        except httpx.HTTPError:
            pass
        return after

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            told = FlowerError.from_json(error.response.text)
            if told is not None:
                raise ControlError(f"{told.message} {told.public_details or ''}".strip()) from None
            status = error.response.status_code
            if status == 403:
                raise ControlError(
                    f"the SuperLink at {self._address} serves this to its own machine only"
                ) from None
            if status in (502, 503, 504):
                raise ControlUnavailableError(self._away()) from None
            raise ControlError(f"the SuperLink at {self._address} answers {status}") from None
        except (httpx.TransportError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ControlUnavailableError(f"{self._away()} ({reason:.200})") from None

    def _away(self) -> str:
        return f"the SuperLink at {self._address} does not answer; is quancrypt server running?"


def _public_key(path: Path) -> bytes:
    return public_key_to_bytes(load_ssh_public_key(path.read_bytes()))  # type: ignore[arg-type]
