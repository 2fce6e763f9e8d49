"""The server: it has the initial model, encrypted sums, and no key."""

import os
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

import quancrypt_native as qn
from digits_app.task import Net
from quancrypt_fl.flower import QuanCryptStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, and keep the final model as the clients sealed it."""
    config = context.run_config
    strategy = QuanCryptStrategy(  # was: FedAvg(
        parameters(), **signed_replies(), fraction_evaluate=config["fraction-evaluate"]
    )
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
    )
    keep(result.arrays, Path("final-model.sealed"))


def parameters() -> qn.Parameters:
    """Those of the clients' key: of the deployment's kits, else as README.md makes the key."""
    if path := os.environ.get("QUANCRYPT_PARAMS"):
        return qn.Parameters.from_bytes(Path(path).read_bytes())
    return qn.Parameters.for_aggregation(bits=8, max_weight=16)


def signed_replies() -> dict[str, str]:
    """In a deployment: replies count that a site of its kits has signed, for the clients' key."""
    if path := os.environ.get("QUANCRYPT_MEMBERS"):
        return {"members": path, "key_id": os.environ["QUANCRYPT_KEY_ID"]}
    return {}


def keep(arrays: ArrayRecord, path: Path) -> None:
    """Write the sealed model; an error if no client was there to seal it."""
    if "quancrypt.snapshot" not in arrays:
        raise RuntimeError(
            "no client has sealed the final model: none answered after the last round. Clients "
            "that took part have it in their state folders (quancrypt-state); run again to have "
            "it here"
        )
    path.write_bytes(arrays["quancrypt.snapshot"].numpy().tobytes())
