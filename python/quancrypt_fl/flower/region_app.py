"""The app of a region's SuperNode at the root: it hands requests over, and brings answers back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower.region_mailbox import Mailbox, MailboxError

__all__ = ["region_app"]


def region_app(
    *,
    timeout: float = 3600.0,
    poll: float = 0.25,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> ClientApp:
    """Make the ClientApp of a region: no mod, no key, no model.

    Its node configuration has ``quancrypt-mailbox``: the folder in which the region's ServerApp, on
    the same machine, finds requests (:meth:`quancrypt_fl.flower.region.Region.serve`).

    Parameters
    ----------
    timeout
        Seconds to wait for an answer.
    poll
        Seconds between two looks for it.
    clock, sleep
        Time, for tests.
    """
    app = ClientApp()

    def pass_on(message: Message, context: Context) -> Message:
        folder = context.node_config.get("quancrypt-mailbox")
        if not folder:
            raise ConfigError(
                'no mailbox: give the node configuration quancrypt-mailbox="FOLDER" '
                "(flower-supernode --node-config)"
            )
        mailbox = Mailbox(Path(str(folder)))
        letter, until = mailbox.send(message), clock() + timeout
        while (content := mailbox.take_answer(letter)) is None:
            if clock() >= until:
                raise MailboxError(f"{folder}: no answer within {timeout:g} s")
            sleep(poll)
        return Message(content, reply_to=message)

    app.train()(pass_on)
    app.evaluate()(pass_on)
    return app
