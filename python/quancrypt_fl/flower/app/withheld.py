"""What a client tells the server of its failures: that there was one, and no more.

Flower sends the text of an exception to the server, which logs it. Errors of data sets name files,
labels and lines: they are for the client's own log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR

from flwr.common import log

from quancrypt_fl.errors import ConfigError, FederatedError

__all__ = ["ClientFailedError", "RunRefusedError", "withheld"]


class RunRefusedError(ConfigError):
    """A client refuses what the server asks for. The text has nothing of the client's files or
    data, so that the server may read it.
    """


class ClientFailedError(FederatedError):
    """A client could not do what it was asked for; why is in its own log."""


@contextmanager
def withheld(what: str) -> Iterator[None]:
    """Log what the block raises, and raise a text in its place that says nothing of it.

    Parameters
    ----------
    what
        What the client does in the block: ``"train"``.

    Raises
    ------
    ClientFailedError
        In place of every exception but :class:`RunRefusedError`.
    """
    try:
        yield
    except RunRefusedError:
        raise
    except Exception as error:
        ours = isinstance(error, FederatedError)  # its message says all that there is to say
        log(ERROR, "this client could not %s: %s", what, error, exc_info=None if ours else error)
        raise ClientFailedError(f"this client could not {what}; its own log says why") from None
