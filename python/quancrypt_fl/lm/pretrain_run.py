"""A federation that pre-trains a language model from random weights, by DiLoCo.

Each client takes H steps of AdamW on its own text (:mod:`.pretrain_trainer`). What it has moved by
is clipped, quantized and encrypted like any update; the mean of all is an outer gradient, along
which every client descends with Nesterov's momentum (:class:`quancrypt_fl.method.outer.Nesterov`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from quancrypt_fl.engines.federation import FederatedRun
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.errors import MethodError
from quancrypt_fl.lm.base import check_fit
from quancrypt_fl.lm.data_parallel import bytes_beside, synchronous_rounds
from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_model import fresh_model
from quancrypt_fl.lm.pretrain_trainer import InnerOptions, InnerTrainer
from quancrypt_fl.lm.run import value_of
from quancrypt_fl.lm.splits import divide_rows, limited
from quancrypt_fl.lm.texts import LanguageData, Texts, read_text, rows_digest
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.observer import Observer
from quancrypt_fl.results import write_results
from quancrypt_fl.training import Evaluation, torch_threads

__all__ = ["PretrainTask", "Pretraining"]

_METRIC = "perplexity"


class PretrainTask:
    """A text divided over clients, and a model: a :class:`~quancrypt_fl.engines.task.Task`.

    Parameters
    ----------
    config
        What to run, its defaults filled in.

    Raises
    ------
    ModelError, DataError
        If model or data are absent, broken, or do not fit each other.
    """

    turns: tuple[frozenset[str], ...] = ()
    trained_by: Mapping[str, frozenset[int]] = {}  # a mapping that nobody changes
    judged_by = "loss"

    def __init__(self, config: PretrainConfig) -> None:
        assert config.batch_size is not None
        self._config = config
        self._fresh = fresh_model(config)
        data = read_text(config.data.expanduser(), self._fresh.encoder, config.sequence_length)
        source = config.data if config.model is None else config.model
        check_fit(source, self._fresh.model, data, config.sequence_length)
        train = limited(data.train, config.max_train_samples, config.seed, "train-limit")
        test = limited(data.test, config.max_test_samples, config.seed, "test-limit")
        options = InnerOptions(
            config.lr,
            config.weight_decay,
            config.batch_size,
            config.local_steps,
            config.warmup_steps,
            config.gradient_clip,
        )
        self.trainer = InnerTrainer(self._fresh.model, options, config.seed, config.device)
        self.weights: Tensors = self.trainer.weights()
        self.own_buffers: Tensors = self.trainer.fresh_state()
        self.fingerprints = {
            "initial weights": _fingerprint(self.weights),
            "data": hashlib.sha256(rows_digest(LanguageData(train, test, data.pad))).hexdigest(),
        }
        self.parts, validation = divide_rows(train, config.partition, config.clients, config.seed)
        self.samples: Mapping[str, Texts] = {"test": test, "validation": validation}

    def round_begins(self, t: int, parts: Callable[[], Mapping[int, float]]) -> None:
        """Count the round's tokens from 0."""
        del t, parts
        self.trainer.tokens = 0

    def evaluate(self, part: str, weights: Tensors, clients: Sequence[Client]) -> Evaluation:
        """Judge global weights."""
        del clients
        return self.trainer.evaluate(weights, self.samples[part])

    def record(self, test: Evaluation) -> dict[str, Any]:
        """The perplexity on the test text, and the tokens that all clients trained on."""
        return {"value": value_of(_METRIC, test), "tokens": self.trainer.tokens}

    def about(self) -> dict[str, Any]:
        """Names without folders, and what ``value`` is."""
        return {
            "dataset": self._config.data.name,
            "model": self._config.model_name,
            "task": "pretrain",
            "metric": _METRIC,
        }

    def sizes(self) -> tuple[int, int]:
        """All of the model travels."""
        values = sum(tensor.size for tensor in self.weights.values())
        return values, values

    def write(self, folder: Path, weights: Tensors) -> None:
        """Write the model for ``AutoModelForCausalLM.from_pretrained``, and its tokenizer."""
        self.trainer.load(weights)
        self._fresh.save(folder)


class Pretraining(FederatedRun):
    """One federated pre-training.

    Parameters
    ----------
    config
        What to run.
    resume, observer
        As of :class:`~quancrypt_fl.engines.federation.FederatedRun`, whose attributes it has too;
        ``config`` is then the configuration with its defaults filled in.
    """

    config: PretrainConfig
    task: PretrainTask

    def __init__(
        self, config: PretrainConfig, *, resume: bool = False, observer: Observer | None = None
    ) -> None:
        resolved = config.resolved()
        super().__init__(resolved, PretrainTask(resolved), resume=resume, observer=observer)

    def run(self) -> dict[str, Any]:
        """:meth:`.FederatedRun.run`, and a comparison with data parallelism in the results.

        With ``baseline``, results without its losses are written before it begins.
        """
        document = super().run()
        rounds = len(document["rounds"])
        totals = document["totals"]
        totals["tokens"] = sum(record["tokens"] for record in document["rounds"])
        compared = bytes_beside(
            totals["bytes"], totals["parameters"], rounds * self.config.local_steps
        )
        document["data_parallel"] = compared
        self._write_results(document)
        if self.config.baseline == "ddp":
            document["data_parallel"] = {**compared, **self._baseline(rounds)}
            self._write_results(document)
        return document

    def _baseline(self, rounds: int) -> dict[str, Any]:
        task = self.task
        with torch_threads(self.config.threads or 1):
            records = synchronous_rounds(
                task.trainer, task.weights, task.parts, task.samples["test"], rounds
            )
        if not math.isfinite(records[-1]["test_loss"]):
            raise MethodError(
                f"baseline = 'ddp': test loss is {records[-1]['test_loss']}: training diverged"
            )
        tokens = sum(record["tokens"] for record in records)
        return {"value": records[-1]["value"], "tokens": tokens, "rounds": records}

    def _write_results(self, document: Mapping[str, Any]) -> None:
        if self.config.out is not None:
            write_results(self.config.out / "results.json", document)


def _fingerprint(weights: Tensors) -> str:
    """Of initial weights."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
