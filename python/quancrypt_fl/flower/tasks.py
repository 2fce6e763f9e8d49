"""One task of an app (a message at a client, a run at the server), in a process that is watched.

Flower starts a process per task and learns from missing heartbeats, a minute later, that one was
killed; of a task that hangs it never learns. Here the process that Flower starts forks: the child
is Flower's own program, the parent waits for it, ends it when its time is over, and tells at once
when it died without an answer. It imports nothing of Flower until then.

A client also runs no other app than those that it knows: the server sends the app with its run, and
what a client's app can read includes the clients' key. :data:`BUNDLES` lists what is allowed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flwr.app import Message
    from flwr.supercore.runtime import RuntimeHttpClient

__all__ = ["BUNDLES", "TIME_LIMIT", "watch"]

BUNDLES = "QUANCRYPT_BUNDLES"
"""Environment variable: SHA-256 digests of the app bundles that a client runs, with commas."""

TIME_LIMIT = "QUANCRYPT_TASK_TIMEOUT"
"""Environment variable: seconds after which a task is ended; none if empty."""

_POLL = 0.1  # seconds
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_PATIENCE = 60.0  # seconds; a task whose SuperLink is away for longer has failed anyway
_TOLD, _ANSWERED = b"message ", b"answered\n"
_PR_SET_PDEATHSIG = 1


def watch(kind: str, arguments: Sequence[str]) -> int:
    """Run ``flwr-serverapp`` or ``flwr-clientapp`` with these arguments; its exit status."""
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _end_with(parent)
        _Task(writing).run(kind)
        return 0
    os.close(writing)
    status, over_time = _wait(child)
    notes = _read(reading)
    failure = _failure(status, over_time)
    if failure and _ANSWERED not in notes:
        _tell(kind, arguments, notes, failure)
    return 0 if status == 0 else 1


# --- the child ---


class _Task:
    """Flower's program, with hooks that note what the parent has to know.

    Attributes
    ----------
    _message
        The message in work, as long as it has no reply.
    """

    def __init__(self, notes: int) -> None:
        self._notes = notes
        self._message: Message | None = None
        self._context: Any = None

    def run(self, kind: str) -> None:
        if kind == "serverapp":
            from flwr.superlink.cli import flwr_serverapp

            flwr_serverapp()
            return
        from flwr.supernode.cli import flwr_clientapp

        # The name of the package's attribute is that of the function in the module.
        module: Any = importlib.import_module("flwr.supernode.runtime.run_clientapp")
        self._hook(module)
        flwr_clientapp()

    def _hook(self, module: Any) -> None:
        pull, push = module.pull_task_input, module.push_message
        output, install = module.push_task_output, module.install_from_fab

        def pull_task_input(client: Any) -> Any:
            pull_messages = client.PullMessages

            def noted(request: Any) -> Any:
                response = pull_messages(request)
                for message in response.messages_list:  # without content, which comes in pieces
                    os.write(
                        self._notes, _TOLD + message.SerializeToString().hex().encode() + b"\n"
                    )
                return response

            client.PullMessages = noted
            given = pull(client)
            self._message, self._context = given[0], given[1]
            return given

        def install_from_fab(content: bytes, **options: Any) -> Any:
            _require_known(content)
            return install(content, **options)

        def push_message(client: Any, message: Any, context: Any) -> None:
            push(client, message, context)
            self._message = None
            os.write(self._notes, _ANSWERED)

        def push_task_output(client: Any, context: Any, sub_status: str, details: str) -> None:
            # Ended by a signal: with the task's output its right to answer is gone, and the
            # SuperNode would wait for the answer for ever.
            if self._message is not None and self._context is not None:
                reply = _error(self._message, "the ClientApp was stopped")
                with suppress(Exception):
                    push_message(client, reply, self._context)
            output(client, context, sub_status, details)

        module.pull_task_input, module.push_message = pull_task_input, push_message
        module.push_task_output, module.install_from_fab = push_task_output, install_from_fab


def _require_known(content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    known = [name for name in os.environ.get(BUNDLES, "").split(",") if name]
    if digest not in known:
        raise PermissionError(
            f"this client does not run the app {digest[:16]}...; it runs "
            f"{', '.join(name[:16] + '...' for name in known) or 'none'} (quancrypt client --app)"
        )


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


# --- the parent ---


def _wait(child: int) -> tuple[int, bool]:
    """Status as ``os.waitpid`` gives it, and whether the time was over."""

    def forward(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, forward)
    limit = os.environ.get(TIME_LIMIT)
    deadline = time.monotonic() + float(limit) if limit else float("inf")
    over_time = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status, over_time
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL if over_time else signal.SIGTERM)
            over_time, deadline = True, time.monotonic() + _GRACE
        time.sleep(_POLL)


def _read(notes: int) -> bytes:
    """All that is in the pipe: a process of the app may still have it open."""
    os.set_blocking(notes, False)
    data = bytearray()
    with suppress(BlockingIOError):
        while block := os.read(notes, 65_536):
            data += block
    os.close(notes)
    return bytes(data)


def _failure(status: int, over_time: bool) -> str | None:
    limit = f", after {os.environ.get(TIME_LIMIT)} s without an answer" if over_time else ""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = "; is there enough memory?" if number == signal.SIGKILL and not over_time else ""
        return f"ended by signal {number} ({signal.Signals(number).name}){limit}{hint}"
    code = os.waitstatus_to_exitcode(status)
    return f"ended with status {code}{limit}" if code else None


def _tell(kind: str, arguments: Sequence[str], notes: bytes, failure: str) -> None:
    """Answer in the place of a process that died; a SuperLink may just be starting again."""
    import httpx

    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            _answer_for(kind, arguments, notes, failure)
            return
        except httpx.HTTPStatusError:
            return  # Flower's program ended by itself and has told already: its token is void
        except (httpx.TransportError, OSError):
            if kind == "clientapp" or time.monotonic() > deadline:
                return  # with its SuperNode a message is gone, too
            time.sleep(1.0)


def _answer_for(kind: str, arguments: Sequence[str], notes: bytes, failure: str) -> None:
    from flwr.common.constant import SubStatus
    from flwr.proto.runtime_pb2 import PushTaskOutputRequest

    client = _client(arguments)
    if kind == "clientapp":
        data = _noted(notes) or _unread(client)
        if data is None:
            return  # Flower starts such a task again; with its output the node would wait for ever
        name = "ClientApp"
        _reply(client, data, f"the {name} {failure}")
    else:
        name = "ServerApp"
    client.PushTaskOutput(
        PushTaskOutputRequest(sub_status=SubStatus.FAILED, details=f"{name} {failure}")
    )
    client.close()
    print(f"{name} {failure}", file=sys.stderr, flush=True)


def _noted(notes: bytes) -> bytes | None:
    """The message that the child had, serialized."""
    lines = [line for line in notes.splitlines(keepends=True) if line.startswith(_TOLD)]
    if not lines or not lines[-1].endswith(b"\n"):
        return None
    return bytes.fromhex(lines[-1][len(_TOLD) :].decode())


def _unread(client: RuntimeHttpClient) -> bytes | None:
    """The message that the child had not fetched yet."""
    import httpx
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest

    with suppress(httpx.HTTPStatusError):  # the child has begun the task
        client.PullTaskInput(PullTaskInputRequest())
    found = client.PullMessages(PullAppMessagesRequest()).messages_list
    return found[0].SerializeToString() if found else None


def _reply(client: RuntimeHttpClient, data: bytes, reason: str) -> None:
    from flwr.app import Context, RecordDict
    from flwr.common.serde import message_from_proto
    from flwr.proto.message_pb2 import Message as MessageProto

    message = message_from_proto(MessageProto.FromString(data))
    module: Any = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    context = Context(
        run_id=message.metadata.run_id,
        node_id=message.metadata.dst_node_id,
        node_config={},
        state=RecordDict(),
        run_config={},
    )
    module.push_message(client, _error(message, reason), context)


def _client(arguments: Sequence[str]) -> RuntimeHttpClient:
    from flwr.supercore.interceptors import (
        RuntimeTokenHttpInterceptor,
        RuntimeVersionHttpInterceptor,
    )
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.supercore.tls import validate_and_resolve_root_certificates

    parser = argparse.ArgumentParser()
    for name in ("runtime-api-address", "token", "root-certificates"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--insecure", action="store_true")
    options, _ = parser.parse_known_args(arguments)
    return RuntimeHttpClient.from_server_address(
        server_address=options.runtime_api_address,
        insecure=options.insecure,
        root_certificates=validate_and_resolve_root_certificates(
            options.root_certificates, options.insecure
        ),
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="flwr-clientapp"),
            RuntimeTokenHttpInterceptor(options.token),
        ],
    )


# --- both ---


def _error(message: Message, reason: str) -> Message:
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode

    return Message(Error(ErrorCode.CLIENT_APP_CRASHED, reason), reply_to=message)
