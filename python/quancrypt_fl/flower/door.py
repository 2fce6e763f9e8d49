"""The SuperLink's door: SuperNodes may come from anywhere, everybody else from this machine only.

Flower serves three interfaces on one port. Fleet is for SuperNodes, who sign each request with the
key of their kit. Control takes apps, from whoever reaches the port: what they hold runs on the
server and on every client. Runtime is for the server's own processes. So Control and Runtime are
refused to callers from other machines.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

__all__ = ["OPEN", "LocalControl", "is_same_machine"]

OPEN = ("/v1/fleet/", "/health")
"""What is open to the network: paths that begin with the first, and the second."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_REFUSAL = b"open to processes on the server's own machine only\n"


class LocalControl:
    """ASGI middleware that refuses all but :data:`OPEN` to callers from other machines."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "lifespan" or _is_open(scope) or is_same_machine(scope):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_REFUSAL))]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSAL})


def _is_open(scope: Scope) -> bool:
    path = str(scope.get("path", ""))
    return scope["type"] == "http" and (path.startswith(OPEN[0]) or path == OPEN[1])


def is_same_machine(scope: Scope) -> bool:
    """Whether a connection comes from loopback, or from the very address that it came to."""
    client, server = scope.get("client"), scope.get("server")
    if not client:
        return False
    try:
        peer = _address(client[0])
        own = _address(server[0]) if server else None
    except ValueError:
        return False
    return peer.is_loopback or peer == own


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
