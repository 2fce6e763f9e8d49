"""``quancrypt data``: tables, JSON, pictures and downloads."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fl.data_files import (
    cifar10_files,
    cifar100_files,
    tar_gz,
    write_files,
    write_ham10000,
    write_mnist,
)

from quancrypt_fl.cli.app import run
from quancrypt_fl.config import CHOICES
from quancrypt_fl.data import DATASETS, load_dataset, split
from quancrypt_fl.data import sources as data_sources
from quancrypt_fl.data.partition import PARTITIONS
from quancrypt_fl.data.sources import RemoteFile

Capture = pytest.CaptureFixture[str]

SIGNATURES = {"png": b"\x89PNG\r\n\x1a\n", "svg": b"<?xml", "pdf": b"%PDF-"}


def document(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert run(["data", *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def refused(capsys: Capture, *arguments: str) -> str:
    assert run(["data", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("quancrypt: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_the_datasets_of_simulate_are_those_of_data() -> None:
    assert tuple(CHOICES["dataset"]) == tuple(DATASETS)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_json_holds_the_split_that_simulate_makes(capsys: Capture, partition: str) -> None:
    found = document(
        capsys, "--partition", partition, "--clients", "7", "--seed", "5",
        "--shards-per-client", "3", "--dirichlet-alpha", "0.3",
    )  # fmt: skip
    dataset = load_dataset("digits", None, 5)
    labels = dataset.train.labels
    divided = split(labels, 7, partition, 5, shards_per_client=3, dirichlet_alpha=0.3)
    assert found["dataset"] == "digits"
    assert found["image_shape"] == [1, 8, 8]
    assert found["classes"] == 10
    assert found["class_names"] == [str(label) for label in range(10)]
    assert found["train"]["samples"] == len(dataset.train)
    assert found["test"]["counts"] == np.bincount(dataset.test.labels).tolist()
    how = found["split"]
    assert (how["partition"], how["seed"], how["validation_share"]) == (partition, 5, 0.2)
    assert how.get("shards_per_client") == (3 if partition == "shards" else None)
    assert how.get("dirichlet_alpha") == (0.3 if partition == "dirichlet" else None)
    clients = [np.bincount(labels[part], minlength=10).tolist() for part in divided.clients]
    assert [client["counts"] for client in how["clients"]] == clients
    assert [client["samples"] for client in how["clients"]] == [sum(row) for row in clients]
    assert all(client["classes"] == sum(map(bool, client["counts"])) for client in how["clients"])
    assert how["validation"]["samples"] == len(divided.validation)
    total = np.sum([*clients, how["validation"]["counts"]], axis=0)
    assert total.tolist() == found["train"]["counts"]


def test_text(capsys: Capture, tmp_path: Path) -> None:
    write_files(tmp_path, cifar10_files(train=40))
    arguments = ("--dataset", "cifar10", "--data-dir", str(tmp_path), "--partition", "shards")
    assert run(["data", *arguments, "--clients", "4"]) == 0
    text = capsys.readouterr().out
    for part in (
        "images    40 training, 10 test",
        "size      32 x 32 pixels, 3 channels",
        "split     shards (2 per client) · 4 clients · seed 1",
        "32 training samples over the clients, 8 for validation, 10 for the test",
        "class  name        training  validation  test",
        "3      cat                4",
        "client  samples  classes  class 0",
    ):
        assert part in text
    assert len(text.splitlines()) == 6 + 1 + 11 + 1 + 5


def test_text_of_many_classes_and_clients(capsys: Capture, tmp_path: Path) -> None:
    write_files(tmp_path, cifar100_files(train=200))
    arguments = ("--dataset", "cifar100", "--data-dir", str(tmp_path), "--clients", "60")
    assert run(["data", *arguments]) == 0
    text = capsys.readouterr().out
    assert "client  samples  classes  largest class\n" in text
    assert "... and 10 clients more; --json lists all\n" in text
    assert max(len(line) for line in text.splitlines()) < 100


def test_validation_and_limits(capsys: Capture) -> None:
    found = document(capsys, "--validation", "0", "--max-train-samples", "100", "--clients", "4")
    assert found["train"]["samples"] == 100
    assert found["split"]["validation"]["samples"] == 0
    assert [client["samples"] for client in found["split"]["clients"]] == [25] * 4


def test_the_largest_seed(capsys: Capture) -> None:
    assert document(capsys, "--seed", str(2**63 - 1))["split"]["seed"] == 2**63 - 1
    found = document(capsys, "--max-train-samples", "2", "--clients", "1")
    assert found["split"]["validation"]["samples"] == 1


def test_notes_are_shown(capsys: Capture, tmp_path: Path) -> None:
    write_ham10000(tmp_path)
    min(tmp_path.rglob("*.jpg")).unlink()
    arguments = ("--dataset", "ham10000", "--data-dir", str(tmp_path), "--clients", "2")
    note = "1 of 42 rows of HAM10000_metadata.csv have no image here"
    assert document(capsys, *arguments)["notes"] == [note]
    assert run(["data", *arguments]) == 0
    assert note in capsys.readouterr().out


def test_lesions_are_not_divided_between_training_and_validation(
    capsys: Capture, tmp_path: Path
) -> None:
    write_ham10000(tmp_path, lesions=35, images_per_lesion=4)
    found = document(capsys, "--dataset", "ham10000", "--data-dir", str(tmp_path), "--clients", "2")
    train = load_dataset("ham10000", tmp_path, 1).train
    divided = split(train.labels, 2, "iid", 1, groups=train.groups)
    assert found["split"]["validation"]["samples"] == len(divided.validation)
    assert all(count % 4 == 0 for count in found["split"]["validation"]["counts"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "imagenet"), "'imagenet' is not available; available: digits, mnist"),
        (("--dataset", "imagenet", "--download"), "'imagenet' is not available"),
        (("--dataset", "mnist"), "to download it: quancrypt data --dataset mnist"),
        (("--dataset", "ham10000"), "Harvard Dataverse"),
        (("--dataset", "ham10000", "--download"), "HAM10000 has no direct download"),
        (("--download",), "'digits' needs no download: it comes with scikit-learn"),
        (("--dataset", "mnist", "--download"), "--download needs --data-dir"),
        (("--partition", "random"), "partition 'random' is not one of iid, shards, dirichlet"),
        (("--clients", "0"), "clients = 0 is not at least 1"),
        (("--clients", "5000"), "has no sample in the iid split"),
        (("--dirichlet-alpha", "0", "--partition", "dirichlet"), "dirichlet_alpha = 0.0"),
        (("--seed", "-1"), "'--seed'"),  # Typer's words for a range differ between versions
        (("--seed", str(2**63)), str(2**63 - 1)),
        (("--max-train-samples", "1", "--clients", "1"), "of 0 training samples, with 1 set aside"),
        (("--validation", "1"), "validation = 1.0 is not in [0, 1)"),
        (("--plot", "split.jpg"), "split.jpg: a picture's name ends in one of .png, .svg, .pdf"),
        (("--plot", "no/such/split.png"), "there is no folder no/such"),
    ],
)
def test_refusals(
    capsys: Capture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


# --- pictures ---


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures_are_reproducible(capsys: Capture, tmp_path: Path, ending: str) -> None:
    paths = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for path in paths:
        assert run(["data", "--partition", "shards", "--plot", str(path)]) == 0
        assert f"written: {path}" in capsys.readouterr().out
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(SIGNATURES[ending])


def test_a_picture_is_not_written_over_another_unasked(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "split.svg"
    path.write_text("mine")
    assert "exists already; --force replaces it" in refused(capsys, "--plot", str(path))
    assert path.read_text() == "mine"
    assert run(["data", "--plot", str(path), "--force"]) == 0
    assert path.read_bytes().startswith(SIGNATURES["svg"])


@pytest.mark.parametrize(
    ("name", "clients"), [("digits", 1), ("ham10000", 10), ("cifar100", 50), ("digits", 200)]
)
def test_pictures_of_every_size(capsys: Capture, tmp_path: Path, name: str, clients: int) -> None:
    """1,500 pixels wide; higher with more clients, up to a limit; every colour is not one."""
    from PIL import Image

    if name == "cifar100":
        write_files(tmp_path, cifar100_files(train=400))
    elif name == "ham10000":
        write_ham10000(tmp_path, lesions=70, images_per_lesion=5)
    path = tmp_path / "split.png"
    arguments = ("--dataset", name, "--data-dir", str(tmp_path), "--clients", str(clients))
    document(capsys, *arguments, "--partition", "dirichlet", "--plot", str(path))
    with Image.open(path) as picture:
        assert picture.width == 1500
        assert 400 <= picture.height <= 1500
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100


# --- downloads ---


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A folder ``tmp_path/served`` behind an address; requests are not logged."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, name: str, url: str, folder: Path) -> None:
    """Let the addresses of a data set be those of the files in ``folder``."""
    files = tuple(
        RemoteFile(
            path.name,
            (url + path.name,),
            path.stat().st_size,
            hashlib.md5(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.iterdir())
    )
    monkeypatch.setitem(data_sources.SOURCES, name, files)


@pytest.mark.parametrize("inside", ["data", "data/mnist"])
def test_mnist_is_downloaded_into_a_folder_of_its_name(
    capsys: Capture, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    write_mnist(tmp_path / "served", train=60)
    publish(monkeypatch, "mnist", served, tmp_path / "served")
    folder = tmp_path / inside
    arguments = ("--dataset", "mnist", "--data-dir", str(folder), "--clients", "3")
    assert document(capsys, *arguments, "--download")["train"]["samples"] == 60
    assert len(list((tmp_path / "data" / "mnist").iterdir())) == 4
    assert document(capsys, *arguments)["train"]["samples"] == 60


def test_an_archive_is_downloaded_and_read_as_it_is(
    capsys: Capture, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = {f"cifar-10-batches-bin/{name}": data for name, data in cifar10_files(40).items()}
    write_files(tmp_path / "served", {"cifar-10-binary.tar.gz": tar_gz(packed)})
    publish(monkeypatch, "cifar10", served, tmp_path / "served")
    folder = tmp_path / "data"
    arguments = ("--dataset", "cifar10", "--data-dir", str(folder), "--clients", "3")
    assert document(capsys, *arguments, "--download")["train"]["samples"] == 40
    assert [path.name for path in folder.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_a_failed_download_is_one_line(
    capsys: Capture, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "served")
    publish(monkeypatch, "mnist", served, tmp_path / "served")
    (tmp_path / "served" / "train-labels-idx1-ubyte.gz").unlink()
    arguments = ("--dataset", "mnist", "--data-dir", str(tmp_path / "data"), "--download")
    message = refused(capsys, *arguments)
    assert f"train-labels-idx1-ubyte.gz: cannot be downloaded: {served}" in message
    assert "404" in message


def test_the_command_line_starts_without_torch_and_matplotlib() -> None:
    code = (
        "import sys; import quancrypt_fl.cli.data; "
        "print({'torch', 'matplotlib', 'sklearn', 'PIL', 'http'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"


def test_an_interrupted_download_says_that_it_goes_on(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("quancrypt_fl.data.download.download", interrupt)
    arguments = ("--dataset", "mnist", "--data-dir", str(tmp_path), "--download")
    assert run(["data", *arguments]) == 130
    assert "what is there is kept, the same command goes on" in capsys.readouterr().err


def test_a_terminal_shows_progress(
    capsys: Capture, tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path / "served", train=60)
    publish(monkeypatch, "mnist", served, tmp_path / "served")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    monkeypatch.setenv("COLUMNS", "120")
    arguments = ("--dataset", "mnist", "--data-dir", str(tmp_path / "data"), "--download")
    assert run(["data", *arguments, "--clients", "2"]) == 0
    shown = capsys.readouterr().err
    for path in (tmp_path / "served").iterdir():
        assert path.name in shown
