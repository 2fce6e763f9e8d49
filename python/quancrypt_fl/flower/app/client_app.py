"""The client: trains what the run learns, on its own data; see :mod:`.learning`."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.flower import quancrypt_mod
from quancrypt_fl.flower.app.final_model import write_final_model
from quancrypt_fl.flower.app.kit_run import keep_to_kit, settings_of
from quancrypt_fl.flower.app.learning import LEARNING, Site, Weights
from quancrypt_fl.flower.app.withheld import withheld

__all__ = ["FEWEST_REPORTED", "app", "site_of"]

FEWEST_REPORTED = 20
"""Samples (of a text: predicted tokens) over which a metric is at least, or it is not sent."""

app = ClientApp(mods=[keep_to_kit, write_final_model, quancrypt_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the global model for a round."""
    with withheld("train"):
        site = site_of(context)
        weights, loss = site.train(_weights(message), _round(message))
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(tensor) for name, tensor in weights.items()}),
            "metrics": MetricRecord({"num-examples": site.samples, "train_loss": loss}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the global model on this client's share of the test set."""
    with withheld("evaluate"):
        found = site_of(context).evaluate(_weights(message))
    few = found["num-examples"] < FEWEST_REPORTED
    metrics = MetricRecord({k: v for k, v in found.items() if k == "num-examples" or not few})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def site_of(context: Context) -> Site:
    """The client of a message, with its data.

    Raises
    ------
    ConfigError
        Naming what of the run or of the node's configuration is wrong.
    """
    settings = settings_of(context)
    return LEARNING[settings.app].site(context, settings)


def _round(message: Message) -> int:
    """Rounds finished before this one, from the configuration that every strategy of Flower
    sends.
    """
    number = next(
        (
            record["server-round"]
            for record in message.content.config_records.values()
            if "server-round" in record
        ),
        None,
    )
    if not isinstance(number, int) or number < 1:
        raise ConfigError(f"server-round is {number!r}; allowed: 1 or more")
    return number - 1


def _weights(message: Message) -> Weights:
    (arrays,) = message.content.array_records.values()
    return {name: array.numpy() for name, array in arrays.items()}
