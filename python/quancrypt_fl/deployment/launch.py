"""Started as a script: ends when its parent does, and becomes the program that it is given.

``python -I -S launch.py PARENT PROGRAM ARGUMENTS...``: on Linux the kernel sends SIGTERM when the
supervisor, process ``PARENT``, is gone for whatever reason. Uses the standard library alone.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Become ``program``; does not return."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before this line
            sys.exit(1)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
