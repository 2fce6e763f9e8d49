"""Ctrl-C: one line on stderr and status 130, from the first import on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["INTERRUPTED", "MESSAGE", "interruptible_imports"]

INTERRUPTED = 130
MESSAGE = "interrupted"


@contextmanager
def interruptible_imports() -> Iterator[None]:
    """End the process at once on SIGINT, instead of raising KeyboardInterrupt within an import.

    Extension modules may turn that exception into another one, or print it and go on. Nothing is
    lost: only imports stand in this context. A SIGINT that is ignored (``nohup``, ``&``) or that
    somebody else handles stays as it is.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    try:
        os.write(2, f"quancrypt: {MESSAGE}\n".encode())
    finally:
        os._exit(INTERRUPTED)
