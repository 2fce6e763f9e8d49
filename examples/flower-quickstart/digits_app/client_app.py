"""The client: trains and evaluates. The mod below is all that it has to do with encryption."""

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits_app.task import Net, load_data
from digits_app.task import test as test_model
from digits_app.task import train as train_model
from quancrypt_fl.flower import quancrypt_mod

app = ClientApp(mods=[quancrypt_mod])  # was: ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the global model on the client's own data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    batches, _ = _data(context)
    torch.manual_seed(int(context.node_config["partition-id"]))
    loss = train_model(
        model, batches, int(context.run_config["local-epochs"]), msg.content["config"]["lr"]
    )
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(batches.dataset)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the global model on the client's own data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    _, batches = _data(context)
    loss, accuracy = test_model(model, batches)
    metrics = {"eval_loss": loss, "eval_acc": accuracy, "num-examples": len(batches.dataset)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def _data(context: Context):
    config = context.node_config
    batch_size = int(context.run_config["batch-size"])
    return load_data(int(config["partition-id"]), int(config["num-partitions"]), batch_size)
