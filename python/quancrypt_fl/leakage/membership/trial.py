"""Cells of the membership study: attacked trainings, and shadow models like them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quancrypt_fl.data import ImageDataset, Samples, load_dataset
from quancrypt_fl.leakage.membership.evidence import Model, update_evidence
from quancrypt_fl.leakage.membership.federation import (
    Federation,
    History,
    Pool,
    Weights,
    clients_of,
)
from quancrypt_fl.leakage.views import View, observe
from quancrypt_fl.seeds import derive_seed, generator
from quancrypt_fl.training import torch_threads

__all__ = ["measure_shadow", "measure_target", "pool_labels"]

_TEST_IMAGES = 2000
_DIGITS = 6  # that are kept of every number
_ENCRYPTIONS = 20
_CIPHERTEXT = View(kind="ciphertext", bits=8, encrypted=True)


def measure_target(
    data_dir: Path | None, device: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Train on half of the pool, on ``device``, and gather evidence from every view of it.

    Returns
    -------
    dict
        ``member`` and what the final model says (``facts``), the losses of all global models
        (``rounds``), the evidence of ``single`` updates and of the ``aggregate`` (samples, rounds,
        3), and of ``ciphertext`` (samples, encryptions, 3) where the view is plain; accuracies and
        bytes.
    """
    with torch_threads(1):
        dataset, federation, pool = _arranged(data_dir, parameters, "target")
        view = View(**parameters["view"])
        trainer = federation.trainer(dataset, int(parameters["seed"]), device)
        history = federation.train(trainer, pool, view, int(parameters["seed"]))
        model = Model(federation.model, dataset)
        facts = model.facts(history.weights[-1], pool.samples)
        test = dataset.test.head(_TEST_IMAGES)
        updates = {
            "single": _evidence(model, history, pool, together=False),
            "aggregate": _evidence(model, history, pool, together=True),
        }
        float32 = 4 * sum(w.size for w in history.weights[0].values())
        sent = {"single": history.sent, "aggregate": history.sent, "final": float32}
        if not view.clip and not view.noise:
            updates["ciphertext"], sent["ciphertext"] = _ciphertext_evidence(model, history, pool)
    return {
        "member": pool.member.tolist(),
        "facts": {name: _listed(values) for name, values in facts.items()},
        "rounds": _listed(np.stack([model.losses(w, pool.samples) for w in history.weights[1:]])),
        "updates": {name: _listed(values) for name, values in updates.items()},
        "sent": sent,
        "float32": float32,
        "clients": federation.clients,
        "train_accuracy": float(facts["right"][pool.member].mean()),
        "test_accuracy": float(model.facts(history.weights[-1], test)["right"].mean()),
    }


def measure_shadow(
    data_dir: Path | None, device: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Train a model like the target on another half of the pool: ``member`` and its ``facts``.

    Its updates pass through the ``view`` of the parameters; without one they are in the clear.
    """
    use = f"shadow-{parameters['shadow']}"
    view = View(**parameters["view"]) if "view" in parameters else View(kind="plaintext")
    seed = derive_seed(int(parameters["seed"]), use)
    with torch_threads(1):
        dataset, federation, pool = _arranged(data_dir, parameters, use)
        trainer = federation.trainer(dataset, seed, device)
        noise = derive_seed(seed, "shadow-noise")
        history = federation.train(trainer, pool, view, noise, keep=False)
        facts = Model(federation.model, dataset).facts(history.weights[-1], pool.samples)
    return {
        "member": pool.member.tolist(),
        "facts": {name: _listed(values) for name, values in facts.items()},
    }


def pool_labels(data_dir: Path | None, parameters: Mapping[str, Any]) -> NDArray[np.int64]:
    """Class of each sample of the pool, which all cells of a study share."""
    return _samples(_dataset(parameters["dataset"], data_dir), parameters).labels


def _arranged(
    data_dir: Path | None, parameters: Mapping[str, Any], use: str
) -> tuple[ImageDataset, Federation, Pool]:
    """The data, the federation, and the pool with the members of one training."""
    dataset = _dataset(parameters["dataset"], data_dir)
    seed, members = int(parameters["seed"]), int(parameters["members"])
    federation = Federation(**parameters["federation"])
    samples = _samples(dataset, parameters)
    inside = generator(seed, f"membership-{use}").permutation(2 * members)[:members]
    member = np.zeros(2 * members, dtype=np.bool_)
    member[inside] = True
    return dataset, federation, Pool(samples, member, clients_of(member, federation.clients))


def _samples(dataset: ImageDataset, parameters: Mapping[str, Any]) -> Samples:
    """The pool: twice as many as members."""
    order = generator(int(parameters["seed"]), "membership-pool").permutation(len(dataset.train))
    return dataset.train.take(order[: 2 * int(parameters["members"])].astype(np.int64))


def _evidence(model: Model, history: History, pool: Pool, *, together: bool) -> NDArray[np.float64]:
    """Evidence of the updates of all rounds about each sample, (samples, rounds, 3).

    A sample is held against the update of its client, or against the aggregate.
    """
    found = np.empty((len(pool.samples), len(history.updates), 3))
    for t, sent in enumerate(history.updates):
        if together:
            mean = history.mean_update(t)
            found[:, t] = update_evidence(model, history.weights[t], mean, pool.samples)
            continue
        for client, update in enumerate(sent):
            mine = np.flatnonzero(pool.client == client)
            part = pool.samples.take(mine)
            found[mine, t] = update_evidence(model, history.weights[t], update, part)
    return found


def _ciphertext_evidence(
    model: Model, history: History, pool: Pool
) -> tuple[NDArray[np.float64], int]:
    """The same from ciphertexts of round 1, (samples, encryptions, 3), and the bytes of one.

    Who sees ciphertexts alone knows the first global weights at most; later ones are opened by
    clients only. Every update is encrypted several times: an attacker has one of them, and what it
    gets should not hang on that one.
    """
    found = np.empty((len(pool.samples), _ENCRYPTIONS, 3))
    sent = 0
    for client, update in enumerate(history.updates[0]):
        tensors = {name: torch.from_numpy(values) for name, values in update.items()}
        mine = np.flatnonzero(pool.client == client)
        part = pool.samples.take(mine)
        for number in range(_ENCRYPTIONS):
            seen = observe(_CIPHERTEXT, [tensors], tensors, tensors, 0)
            numbers: Weights = {name: t.numpy() for name, t in seen.tensors.items()}
            found[mine, number] = update_evidence(model, history.weights[0], numbers, part)
            sent = seen.sent
    return found, sent


@functools.lru_cache(maxsize=1)
def _dataset(name: str, data_dir: Path | None) -> ImageDataset:
    return load_dataset(name, data_dir, 1)


def _listed(values: NDArray[np.float64]) -> Any:
    """Nested lists of finite numbers, rounded."""
    finite = np.clip(np.nan_to_num(values, nan=0.0), -1e9, 1e9)
    return (
        np.array([float(f"{v:.{_DIGITS}g}") for v in finite.ravel()]).reshape(values.shape).tolist()
    )
