"""The server: it has the model's config.json, encrypted sums, and neither key nor base model."""

import os
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

import quancrypt_native as qn
from lora_app import task
from quancrypt_fl.flower import QuanCryptStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Tune the adapter, and keep the final one as a client sealed it."""
    config = context.run_config
    initial = task.travelling(task.blank(Path(config["config-json"]), config["rank"]))
    params = qn.Parameters.from_bytes(Path(os.environ["QUANCRYPT_PARAMS"]).read_bytes())
    signed = {"members": os.environ["QUANCRYPT_MEMBERS"], "key_id": os.environ["QUANCRYPT_KEY_ID"]}
    strategy = QuanCryptStrategy(params, pruning=None, **signed)  # was: FedAvg()
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
    sealed = result.arrays.get("quancrypt.snapshot")
    if sealed is None:
        raise RuntimeError("no client has sealed the final adapter; clients have it in their state")
    Path("final-adapter.sealed").write_bytes(sealed.numpy().tobytes())
