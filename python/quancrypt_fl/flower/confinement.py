"""What other programs of the same user may do to a client's processes: nothing, if closed.

Imports nothing of Flower and nothing that takes time: every process of a client begins with it.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["CLOSED", "close_if_asked", "close_process"]

CLOSED = "QUANCRYPT_CLOSED"
"""Environment variable: "1" if the processes of a client close themselves."""

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def close_process() -> None:
    """Let no debugger attach to this process, and no other program of its user read its memory or
    its environment; the system writes no core dump of it. Root still can.

    Programs that this one starts are open again until they call this.

    Raises
    ------
    OSError
        If the system refuses, or is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise OSError(f"processes cannot be closed to debuggers on {sys.platform}")
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 or prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the system does not close this process to debuggers")


def close_if_asked() -> None:
    """:func:`close_process` where :data:`CLOSED` says so."""
    if os.environ.get(CLOSED) == "1":
        close_process()
