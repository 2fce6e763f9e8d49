"""The server: it has the initial model, encrypted sums, and no key."""

from pathlib import Path

import quancrypt_native as qn
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from digits_app.task import Net
from quancrypt_fl.flower import QuanCryptStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and keep the final model as the clients sealed it."""
    config = context.run_config
    params = qn.Parameters.for_aggregation(bits=8, max_weight=16)
    strategy = QuanCryptStrategy(  # was: FedAvg(
        params, fraction_evaluate=config["fraction-evaluate"]
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
    sealed = result.arrays["quancrypt.snapshot"].numpy().tobytes()
    Path("final-model.sealed").write_bytes(sealed)
