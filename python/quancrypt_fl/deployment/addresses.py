"""Where the server is: host names, IP addresses and ports as people write them."""

from __future__ import annotations

import ipaddress
import re

from quancrypt_fl.errors import FederatedError

__all__ = ["AddressError", "check_host", "is_loopback", "listening", "parse_address"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST = 253  # characters of a name in the DNS


class AddressError(FederatedError, ValueError):
    """What was given is no host, or no port."""


def parse_address(text: str) -> tuple[str, int | None]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``.

    Raises
    ------
    AddressError
        If clients could not reach a server by it.
    """
    host, port = text, ""
    if "/" in text:
        raise AddressError(f"{text!r:.80}: no host; allowed: HOST, HOST:PORT, [IPV6]:PORT")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError(f"{text!r}: allowed: HOST, HOST:PORT, [IPV6]:PORT")
        port = rest[1:] if rest else ""
        separated = bool(rest)
    else:
        separated = text.count(":") == 1
        if separated:
            host, _, port = text.partition(":")
    if separated and not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= 65_535):
        raise AddressError(f"{text!r}: port {port!r:.20}; allowed: 1 to 65535")
    host = check_host(host)
    address = ip_address(host)
    if address is not None and address.is_unspecified:
        raise AddressError(f"{text!r}: means every address; name the one that clients connect to")
    return host, int(port) if separated else None


def check_host(host: str) -> str:
    """``host`` if it is a host name or an IP address."""
    if ip_address(host) is None and (
        len(host) > _LONGEST
        or not _HOST_NAME.fullmatch(host)
        or re.fullmatch(r"[0-9.]+", host)  # an IPv4 address that is none
    ):
        raise AddressError(
            f"{host!r:.80}: no host; allowed: a host name (letters, digits, '-', '.') or an IP "
            "address"
        )
    return host


def ip_address(host: str) -> IPAddress | None:
    """The IP address that ``host`` is, or None if it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only processes on the same machine reach ``host``."""
    address = ip_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def listening(host: str) -> str:
    """Address on which a server listens whom clients reach as ``host``.

    All addresses of the machine, because ``host`` may be that of a router in front of it; only the
    machine itself where nobody else is meant to connect.
    """
    address = ip_address(host)
    if is_loopback(host):
        return "127.0.0.1" if address is None else host
    return "::" if address is not None and address.version == 6 else "0.0.0.0"
