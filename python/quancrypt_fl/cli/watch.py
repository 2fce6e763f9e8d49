"""``quancrypt watch``: a deployed run as it goes on, in the terminal or on a page."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quancrypt_fl.cli.errors import CommandError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import print_json, printable

if TYPE_CHECKING:
    from quancrypt_fl.watching.source import StatusSource

__all__ = ["watch"]

_FAILED = 1
_FAILURES = ("failed", "stopped")  # states


def watch(
    place: Annotated[
        Path, typer.Argument(metavar="DIR", help="A server's kit, or the folder of a run.")
    ],
    web: Annotated[
        bool, typer.Option("--web", help="Serve a page that refreshes, instead of a view here.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Of the page; 0 takes a free one.")
    ] = 8090,
    host: Annotated[
        str, typer.Option(help="Address of the page; it has no password.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show the present state and end.")] = False,
    json_only: JsonOnly = False,
) -> None:
    """Follow a deployed run: round, clients, bytes, time per phase, accuracy.

    Reads the status.json that the server keeps, so it may run in another terminal, before the run
    starts and after it ends. Without a terminal it prints a line per round. The exit status is 1 if
    the run failed or was stopped. --json prints the state once, as one JSON document.
    """
    if web and (once or json_only):
        raise CommandError(
            "--web goes with neither --once nor --json: the page serves /status.json"
        )
    if show and not web:
        raise CommandError("--open goes with --web")
    with interruptible_imports():
        from quancrypt_fl.watching.source import StatusSource

    source = StatusSource(place)
    try:
        failed = (
            _serve(source, host, port, show=show)
            if web
            else _once(source, json_only=json_only)
            if once or json_only
            else _follow(source)
        )
    except KeyboardInterrupt:  # how one leaves: the run goes on
        return
    if failed:
        raise typer.Exit(_FAILED)


def _once(source: StatusSource, *, json_only: bool) -> bool:
    from dataclasses import asdict

    from rich.console import Console

    from quancrypt_fl.watching.terminal import view

    status = source.read()
    if status is None and source.problem:
        raise CommandError(f"{source.place}: {source.problem}")
    if status is None:
        raise CommandError(
            f"{source.place}: no status.json in it yet: no run has started, or it is of an app of "
            "your own, which has one if it gives its strategy observer=StatusFile(folder)"
        )
    if json_only:
        print_json(asdict(status))
    else:
        console = Console()
        console.print(view(status, time.time(), source.problem, width=console.width))
    return status.state in _FAILURES


def _follow(source: StatusSource) -> bool:
    from rich.console import Console

    from quancrypt_fl.watching.terminal import follow, follow_lines

    console = Console()
    if console.is_terminal:
        status = follow(source, console)
    else:
        status = follow_lines(source, lambda line: print(printable(line), flush=True))
    return status is not None and status.state in _FAILURES


def _serve(source: StatusSource, host: str, port: int, *, show: bool) -> bool:
    import webbrowser

    from quancrypt_fl.watching.server import WatchServer

    with WatchServer(source, host, port) as server:
        print(f"{server.url} shows the run; Ctrl-C ends this page, not the run", flush=True)
        if server.open_to_others:
            line = f"quancrypt: {host}: whoever reaches this address can read the page"
            print(printable(line), file=sys.stderr)
        if show and not webbrowser.open(server.url):
            print("quancrypt: no browser was found to open it", file=sys.stderr)
        server.wait()
    return False
