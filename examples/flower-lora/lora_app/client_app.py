"""The client: tunes the adapter on its own text. The mod below is all that is of encryption."""

from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peft import PeftModel, set_peft_model_state_dict

from lora_app import task
from quancrypt_fl.flower import quancrypt_mod

app = ClientApp(mods=[quancrypt_mod])  # was: ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train what travels of the adapter."""
    adapter, (rows, _) = _loaded(msg, context), _rows(context)
    torch.manual_seed(int(context.node_config["partition-id"]))
    loss = task.train(adapter, rows, context.run_config["local-steps"], msg.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(rows)})
    arrays = ArrayRecord(task.travelling(adapter))
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the adapter on the end of the client's own text."""
    adapter, (_, rows) = _loaded(msg, context), _rows(context)
    metrics = {"eval_loss": task.test(adapter, rows), "num-examples": len(rows)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)


def _loaded(msg: Message, context: Context) -> PeftModel:
    """The client's model with the global adapter."""
    model = task.base_model(Path(context.node_config["data-dir"]) / "model")
    adapter = task.adapted(model, context.run_config["rank"])
    set_peft_model_state_dict(adapter, msg.content["arrays"].to_torch_state_dict())
    return adapter


def _rows(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    return task.load_rows(Path(context.node_config["data-dir"]) / "text.txt")
