"""The built-in app, the SuperLink's door, tasks that die: what needs no SuperLink."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

flwr_app = pytest.importorskip("flwr.app")

from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

import quancrypt_native as qn  # noqa: E402
from quancrypt_fl import QuanCryptConfig, Simulation  # noqa: E402
from quancrypt_fl.deployment import toml  # noqa: E402
from quancrypt_fl.deployment.kits import ServerKit  # noqa: E402
from quancrypt_fl.deployment.runs import builtin_settings  # noqa: E402
from quancrypt_fl.envelopes import Members  # noqa: E402
from quancrypt_fl.envelopes.signer import Signer  # noqa: E402
from quancrypt_fl.errors import ConfigError  # noqa: E402
from quancrypt_fl.flower import programs  # noqa: E402
from quancrypt_fl.flower.app import SETTINGS_KEY, client_app, server_app  # noqa: E402
from quancrypt_fl.flower.app.buffers import OwnBuffers  # noqa: E402
from quancrypt_fl.flower.app.client_app import site_of  # noqa: E402
from quancrypt_fl.flower.app.document import deployed_document  # noqa: E402
from quancrypt_fl.flower.app.kit_run import KIT, keep_to_kit  # noqa: E402
from quancrypt_fl.flower.app.sampling import SampledStrategy  # noqa: E402
from quancrypt_fl.flower.app.server_app import MEMBERS, PARAMS, STATE  # noqa: E402
from quancrypt_fl.flower.app.settings import RunSettings  # noqa: E402
from quancrypt_fl.flower.app.trainer import first_model  # noqa: E402
from quancrypt_fl.flower.app.withheld import RunRefusedError  # noqa: E402
from quancrypt_fl.flower.bundles import built_in_bundle, bundle_of  # noqa: E402
from quancrypt_fl.flower.door import LocalControl  # noqa: E402
from quancrypt_fl.flower.observing import RunObserver  # noqa: E402
from quancrypt_fl.flower.protocol import Request, write  # noqa: E402
from quancrypt_fl.flower.tasks import _failure, _require_known  # noqa: E402
from quancrypt_fl.training import torch_threads  # noqa: E402

FIELDS: dict[str, Any] = {"dataset": "digits", "model": "mlp", "clients": 3, "local_epochs": 1}


def settings(**changes: Any) -> str:
    fields = {**FIELDS, **changes}
    return json.dumps({"config": fields, "image_shape": [1, 8, 8], "classes": 10})


KIT_OF: dict[str, str] = {}


def kit_file(path: Path, app: str = "builtin", **changes: Any) -> str:
    """A kit's ``node.toml``, as far as the app reads it."""
    path.write_text(toml.table({"app": app, **FIELDS, **changes}, "[run]"))
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def kit_of_fields(tmp_path_factory: pytest.TempPathFactory) -> None:
    KIT_OF[KIT] = kit_file(tmp_path_factory.mktemp("kit") / "node.toml")


def context(run: str, partition: int = 1, **node: Any) -> Any:
    return flwr_app.Context(
        run_id=1,
        node_id=7,
        node_config={"partition-id": partition, "num-partitions": 3, **KIT_OF, **node},
        state=flwr_app.RecordDict(),
        run_config={SETTINGS_KEY: run},
    )


# --- the app ---


def test_a_site_trains_as_the_simulations_client() -> None:
    run = RunSettings.of({SETTINGS_KEY: settings()})
    simulation = Simulation(QuanCryptConfig(**FIELDS))
    weights, size = first_model(run, run.configuration())
    assert size == sum(tensor.size for tensor in simulation.model.values())
    assert list(weights) == list(simulation.state.weights)
    for name, tensor in simulation.state.weights.items():
        np.testing.assert_array_equal(weights[name], tensor)
    site, client = site_of(context(settings())), simulation._clients[1]
    assert site.samples == client.samples
    trained, loss = site.train(weights, 0)
    with torch_threads(1):
        expected = client.train(simulation.state)
    assert loss == expected.loss
    for name, tensor in expected.weights.items():
        np.testing.assert_array_equal(trained[name], tensor)


def test_test_samples_are_divided_without_rest() -> None:
    weights, _ = first_model(
        RunSettings.of({SETTINGS_KEY: settings()}), QuanCryptConfig(**FIELDS).resolved()
    )
    simulation = Simulation(QuanCryptConfig(**FIELDS))
    whole = simulation._evaluate("test")
    parts = [site_of(context(settings(), index)).evaluate(weights) for index in range(3)]
    total = sum(part["num-examples"] for part in parts)
    assert total == len(simulation.task.samples["test"])
    mean = sum(part["accuracy"] * part["num-examples"] for part in parts) / total
    assert mean == pytest.approx(whole.accuracy)


def test_the_run_says_how_many_clients_there_are() -> None:
    """A kit that was made for three, in a deployment that has four by now."""
    simulation = Simulation(QuanCryptConfig(**{**FIELDS, "clients": 4}))
    site = site_of(context(settings(clients=4)))
    assert site.samples == simulation._clients[1].samples


def test_own_data_is_not_divided() -> None:
    late = site_of(context(settings(clients=2), 2, **{"quancrypt-data": "all"}))
    assert late.samples == site_of(context(settings(), **{"quancrypt-data": "all"})).samples
    own = site_of(context(settings(), **{"quancrypt-data": "all"}))
    assert own.samples > 2 * site_of(context(settings())).samples


@pytest.mark.parametrize(
    ("run", "node", "message"),
    [
        ("", {}, "has no quancrypt-run; start the run with quancrypt run"),
        ("{}", {}, "config"),
        (
            settings(clients=2),
            {"partition-id": 2},
            "partition 2, and the run divides its data among",
        ),
        (settings(), {"partition-id": -1}, "partition -1, and"),
        (settings(lr=-1), {}, "lr"),
        (settings(), {"quancrypt-data": "half"}, "allowed: part, all"),
        (settings(), {"partition-id": "one"}, "allowed: a number"),
        (settings().replace("[1, 8, 8]", "[1, 9, 9]"), {}, "images are"),
        (settings(), {KIT: ""}, "quancrypt-kit is not in the node configuration"),
        (settings(), {KIT: "/nowhere/node.toml"}, "cannot be read"),
        (settings(max_test_samples=1), {}, r"max_test_samples = 1 \(kit: None\)"),
        (settings(max_train_samples=1), {}, r"max_train_samples = 1 \(kit: None\)"),
        (settings(lr=0.5), {}, r"lr = 0\.5 \(kit: 0\.001\)"),
        (settings(seed=2), {}, r"seed = 2 \(kit: 1\)"),
        (settings(tensorboard="/tmp/x"), {}, "tensorboard = '/tmp/x'"),
    ],
)
def test_what_a_client_refuses(run: str, node: dict[str, Any], message: str) -> None:
    made = context(run)
    made.node_config.update(node)
    with pytest.raises(ConfigError, match=message):
        site_of(made)


@pytest.mark.parametrize("app", ["own", "finetune"])
def test_the_kit_says_what_is_learned(tmp_path: Path, app: str) -> None:
    node = {KIT: kit_file(tmp_path / "node.toml", app)}
    with pytest.raises(RunRefusedError, match=f"runs 'builtin'; the kit of this client is.*{app}"):
        site_of(context(settings(), **node))


def test_the_number_of_rounds_is_the_servers() -> None:
    assert site_of(context(settings(rounds=77))).samples > 0


def begun(run: str, weights: dict[str, Any], **agreed: Any) -> Any:
    """A request that brings an initial model."""
    config = RunSettings.of({SETTINGS_KEY: run}).configuration()
    header = Request(
        training="0" * 32,
        round=0,
        chain="0" * 64,
        asks=("train",),
        agreement=config.agreement().model_copy(update=agreed),
        names=tuple(weights),
        floats=dict.fromkeys(weights, "float32"),
        initial=True,
    )
    arrays = {name: flwr_app.Array(tensor) for name, tensor in weights.items()}
    content = flwr_app.RecordDict({"arrays": flwr_app.ArrayRecord(arrays)})
    return SimpleNamespace(content=write(header, {}, content), has_content=lambda: True)


def test_a_training_begins_with_the_runs_model_and_method() -> None:
    weights, _ = first_model(
        RunSettings.of({SETTINGS_KEY: settings()}), QuanCryptConfig(**FIELDS).resolved()
    )
    passed: list[Any] = []

    def take(message: Any, _: Any) -> Any:
        passed.append(message)
        return message

    node = context(settings())
    keep_to_kit(begun(settings(), weights), node, take)
    nearly = {name: tensor * np.float32(1 + 1e-7) for name, tensor in weights.items()}
    keep_to_kit(begun(settings(), nearly), node, take)  # of another processor
    assert len(passed) == 2
    name = next(iter(weights))
    for other in (
        {**weights, name: weights[name] + np.float32(0.01)},
        {**weights, name: weights[name] * np.float32("nan")},
        {**weights, name: weights[name][:1]},
        {key: tensor for key, tensor in weights.items() if key != name},
    ):
        with pytest.raises(RunRefusedError, match="initial model is not the one that seed = 1"):
            keep_to_kit(begun(settings(), other), node, take)
    for agreed in ({"weighting": "prescaled"}, {"clip_factor": 1e-3}, {"turns": ((name,),)}):
        with pytest.raises(RunRefusedError, match=f"the request's {next(iter(agreed))} are not"):
            keep_to_kit(begun(settings(), weights, **agreed), node, take)
    assert len(passed) == 2


def test_few_samples_are_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 7)
    weights, _ = first_model(
        RunSettings.of({SETTINGS_KEY: settings()}), QuanCryptConfig(**FIELDS).resolved()
    )
    arrays = {name: flwr_app.Array(tensor) for name, tensor in weights.items()}
    for clients, reported in ((3, {"num-examples", "accuracy", "loss"}), (30, {"num-examples"})):
        fields = {**FIELDS, "clients": clients, "max_weight": 64}
        node = context(settings(**fields))
        node.node_config[KIT] = kit_file(Path(KIT_OF[KIT]).with_name("more.toml"), **fields)
        content = flwr_app.RecordDict({"arrays": flwr_app.ArrayRecord(arrays)})
        reply = client_app.evaluate(flwr_app.Message(content, 7, "evaluate"), node)
        assert set(reply.content.metric_records["metrics"]) == reported


class ConnectedNodes:
    """A grid of a deployment that says who is connected."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def get_node_ids(self) -> list[int]:
        return list(range(len(self.names)))

    def get_nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, node_id=n) for n, name in enumerate(self.names)]


@pytest.fixture
def members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's environment, of a deployment from which the second of three was removed."""
    path = tmp_path / "members.toml"
    signers = [Signer.generate(name) for name in ("client-1", "client-3")]
    path.write_text(Members(signer.member for signer in signers).to_toml())
    (tmp_path / "params.qcp").write_bytes(
        qn.Parameters.for_aggregation(bits=8, max_weight=4).to_bytes()
    )
    for name, value in ((STATE, ""), (PARAMS, "params.qcp"), (MEMBERS, "members.toml")):
        monkeypatch.setenv(name, str(tmp_path / value))


def test_the_server_asks_for_signed_replies(
    members: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the list it trains nobody: unsigned replies are never what a deployment wants."""
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv(MEMBERS)
        else:
            monkeypatch.setenv(MEMBERS, value)
        with pytest.raises(ConfigError, match="QUANCRYPT_MEMBERS is not in the environment"):
            server_app.main(ConnectedNodes(), context(settings()))
        assert not (tmp_path / "runs").exists()


def test_nobody_waits_for_a_site_that_was_removed(
    members: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunSettings.of({SETTINGS_KEY: settings()})

    def wait(seconds: float) -> None:
        raise InterruptedError

    monkeypatch.setattr(server_app.time, "sleep", wait)
    server_app._wait_for_clients(
        ConnectedNodes("client-1", "client-3"), run, run.configuration(), RunObserver()
    )
    with pytest.raises(InterruptedError):
        server_app._wait_for_clients(
            ConnectedNodes("client-1"), run, run.configuration(), RunObserver()
        )


def test_a_free_place_is_drawn_as_a_site_that_is_away() -> None:
    params = qn.Parameters.for_aggregation(bits=8, max_weight=4)
    config = QuanCryptConfig(**{**FIELDS, "participation": 0.7}).resolved()
    nodes, drawn = ConnectedNodes("client-3", "", "client-1"), {}
    for names in (("client-1", "client-2", "client-3"), ("client-1", "", "client-3")):
        strategy = SampledStrategy(params, config, names)
        drawn[names] = [strategy._chosen(t, nodes) for t in range(20)]
    whole, left = drawn.values()
    assert whole == left
    assert {len(chosen) for chosen in left} == {1, 2}
    assert {node for chosen in left for node in chosen} == {0, 2}


def test_own_buffers_outlive_the_node(tmp_path: Path) -> None:
    initial = {"mean": np.zeros(2, np.float32)}
    path = tmp_path / "state" / "buffers.safetensors"
    for place in (None, path):
        records = flwr_app.RecordDict()
        own = OwnBuffers(initial, records, place)
        assert own.before(3)["mean"].tolist() == [0, 0]
        own.keep({"mean": np.ones(2, np.float32)})
        again = OwnBuffers(initial, records if place is None else flwr_app.RecordDict(), place)
        assert again.before(4)["mean"].tolist() == [1, 1]
        assert again.before(0)["mean"].tolist() == [0, 0]
    assert OwnBuffers({}, flwr_app.RecordDict(), path).latest() == {}


def test_results_of_rounds_that_failed() -> None:
    from quancrypt_fl.report.runs import parse_run

    seconds = dict.fromkeys(("train", "protect", "aggregate", "unprotect", "evaluate", "wall"), 1.0)
    rounds = [
        {
            "round": number,
            "test_accuracy": accuracy,
            "test_loss": accuracy and 0.5,
            "train_loss": 0.5,
            "pruning_rate": 0.2,
            "seconds": seconds,
            "bytes": {"upload": 10, "download": 10},
            "participants": 0 if accuracy is None else 2,
            "lost": 0,
            "ciphertexts": 1,
            "failed": "nobody answered" if accuracy is None else None,
        }
        for number, accuracy in ((1, None), (2, 0.5), (3, 0.4))
    ]
    document = deployed_document(
        QuanCryptConfig(**FIELDS).resolved(),
        rounds,
        params=qn.Parameters.for_aggregation(bits=8, max_weight=4),
        keys=[{"fingerprint": "0" * 32, "from_round": 1}],
        parameters=10,
        exchanged=10,
        about={"dataset": "digits", "model": "mlp"},
    )
    totals = document["totals"]
    assert (totals["test_accuracy"], totals["best_round"], totals["failed_rounds"]) == (0.4, 2, 1)
    assert document["receipt"]["protected"]
    parse_run(json.loads(json.dumps(document, allow_nan=False)), "run-1")


def test_settings_from_a_kit(made: Any) -> None:
    folder, _ = made
    kit = ServerKit.load(folder / "server")
    values = builtin_settings(kit, "run-1", rounds=7, timeout=5.0, wait=1.0, snapshot_every=2)
    read = RunSettings.of({SETTINGS_KEY: json.dumps({**values, "resume": True})})
    assert read.resume
    assert read.key_id == kit.key_id
    config = read.configuration()
    assert config.rounds == 7
    assert config == kit.config.model_copy(update={"rounds": 7})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"aggregation": "median-of-groups", "groups": 2, "clients": 4},
            "aggregation = 'median-of-groups': for simulations; allowed in a deployment: "
            "aggregation = 'mean'",
        ),
        ({"dp": "discrete-gaussian", "bits": 12}, "allowed in a deployment: dp = 'none'"),
    ],
)
def test_what_is_for_simulations_is_refused(fields: dict[str, Any], message: str) -> None:
    """By clients too, whatever a server says: noise that nobody adds would be a promise."""
    with pytest.raises(ConfigError) as caught:
        RunSettings.of({SETTINGS_KEY: settings(**fields)})
    assert message in str(caught.value)


# --- bundles ---


def test_the_same_app_is_the_same_bundle(tmp_path: Path) -> None:
    assert built_in_bundle().digest == built_in_bundle().digest
    assert built_in_bundle().config == {SETTINGS_KEY: ""}
    example = Path(__file__).resolve().parents[3] / "examples" / "flower-quickstart"
    assert "num-server-rounds" in bundle_of(example).config
    with pytest.raises(ConfigError, match=r"has no pyproject\.toml"):
        bundle_of(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(ConfigError, match="is no Flower app"):
        bundle_of(tmp_path)


def test_a_client_runs_the_apps_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = built_in_bundle()
    monkeypatch.setenv("QUANCRYPT_BUNDLES", f"{'0' * 64},{bundle.digest}")
    _require_known(bundle.content)
    with pytest.raises(PermissionError, match="does not run the app"):
        _require_known(bundle.content + b"x")
    monkeypatch.delenv("QUANCRYPT_BUNDLES")
    with pytest.raises(PermissionError, match="it runs none"):
        _require_known(bundle.content)


# --- programs ---


def test_nothing_reaches_for_the_internet_unless_the_user_wants_it(tmp_path: Path) -> None:
    made = programs.environment({"PATH": "/bin"}, tmp_path, fronts=tmp_path / "bin")
    assert made["FLWR_TELEMETRY_ENABLED"] == "0"
    assert made["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert made["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert made["RAY_USAGE_STATS_ENABLED"] == "0"
    assert made["FLWR_HOME"] == str(tmp_path)
    assert made["PATH"] == f"{tmp_path / 'bin'}:/bin"
    wanted = programs.environment({"FLWR_TELEMETRY_ENABLED": "1"}, tmp_path)
    assert wanted["FLWR_TELEMETRY_ENABLED"] == "1"
    behind = programs.environment({"HTTPS_PROXY": "x", "no_proxy": "a"}, tmp_path)
    assert behind["NO_PROXY"] == "a,localhost,127.0.0.1,::1"


def test_fronts_start_our_programs(tmp_path: Path) -> None:
    folder = programs.write_fronts(tmp_path / "a folder")
    front = folder / "flwr-clientapp"
    assert front.stat().st_mode & 0o777 == 0o700
    done = subprocess.run(
        [front, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )
    assert done.returncode == 0
    assert "usage: flwr-clientapp" in done.stdout


@pytest.mark.parametrize(
    ("ending", "failure"),
    [
        ("pass", None),
        ("os._exit(3)", "ended with status 3"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9 (SIGKILL); is there enough memory?"),
        ("os.kill(os.getpid(), 11)", "ended by signal 11 (SIGSEGV)"),
    ],
)
def test_how_a_task_ended(ending: str, failure: str | None) -> None:
    code = f"import os; {ending}"
    pid = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", code], {})
    _, status = os.waitpid(pid, 0)
    assert _failure(status, over_time=False) == failure


# --- the door ---


@pytest.mark.parametrize(
    ("path", "client", "server", "allowed"),
    [
        ("/v1/fleet/pull-messages", "203.0.113.9", "192.0.2.1", True),
        ("/health", "203.0.113.9", "192.0.2.1", True),
        ("/v1/control/start-run", "203.0.113.9", "192.0.2.1", False),
        ("/v1/runtime/acquire-task", "203.0.113.9", "192.0.2.1", False),
        ("/docs", "203.0.113.9", "192.0.2.1", False),
        ("/v1/fleet", "203.0.113.9", "192.0.2.1", False),
        ("/health/../v1/control/start-run", "203.0.113.9", "192.0.2.1", False),
        ("/v1/control/start-run", "127.0.0.1", "127.0.0.1", True),
        ("/v1/control/start-run", "::1", "::1", True),
        ("/v1/control/start-run", "::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("/v1/control/start-run", "192.0.2.1", "192.0.2.1", True),
        ("/v1/control/start-run", "192.0.2.2", "192.0.2.1", False),
        ("/v1/control/start-run", "a socket", "192.0.2.1", False),
        ("/v1/control/start-run", None, "192.0.2.1", False),
    ],
)
def test_the_door(path: str, client: str | None, server: str, allowed: bool) -> None:
    passed: list[str] = []
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the door reads no bodies")

    scope = {
        "type": "http",
        "path": path,
        "client": None if client is None else (client, 5000),
        "server": (server, 8000),
    }
    asyncio.run(LocalControl(app)(scope, receive, send))
    assert passed == ([path] if allowed else [])
    assert [message.get("status") for message in sent] == ([] if allowed else [403, None])


def test_the_door_passes_on_the_lifespan() -> None:
    passed: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["type"])

    asyncio.run(LocalControl(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    asyncio.run(LocalControl(app)({"type": "websocket"}, None, None))  # type: ignore[arg-type]
    assert passed == ["lifespan"]
