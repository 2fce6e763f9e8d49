"""What the native core runs on."""

from quancrypt_native import _core
from quancrypt_native._validate import integer


def cpu_features() -> list[str]:
    """Instruction-set extensions that the CPU has and the operating system lets programs use."""
    return _core.cpu_features()


def backend() -> str:
    """Name of the kernel set in use; ``QUANCRYPT_BACKEND`` in the environment forces one."""
    return _core.backend()


def backends() -> list[str]:
    """Kernel sets that run on this machine, best first."""
    return _core.backends()


def num_threads() -> int:
    """Threads that encryption, aggregation and decryption use."""
    return _core.num_threads()


def set_num_threads(threads: int) -> None:
    """Set :func:`num_threads`; ``QUANCRYPT_NUM_THREADS`` sets the start value, default all CPUs."""
    _core.set_num_threads(integer("threads", threads, 1, 1024))
