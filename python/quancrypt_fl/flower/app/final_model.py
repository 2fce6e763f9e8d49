"""What a client does with the final model beyond keeping it: a form in which its users load it."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable
from safetensors.numpy import load_file

from quancrypt_fl.flower.app.kit_run import settings_of
from quancrypt_fl.flower.app.learning import LEARNING
from quancrypt_fl.flower.app.withheld import withheld
from quancrypt_fl.flower.protocol import is_request, read_request
from quancrypt_fl.flower.stores import finished_model

__all__ = ["write_final_model"]


def write_final_model(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod around ``quancrypt_mod``, which alone knows when a training is over."""
    request = read_request(message) if is_request(message) else None
    reply = call_next(message, context)
    state = context.node_config.get("quancrypt-state")
    if request is None or "finish" not in request.asks or not state:
        return reply
    with withheld("write the final model"):
        settings = settings_of(context)
        learning, path = LEARNING[settings.app], finished_model(Path(str(state)), request.training)
        if learning.writes and reply.has_content() and path.is_file():
            learning.site(context, settings).write(path.parent, load_file(path))
    return reply
