"""A federation that fine-tunes a language model's adapter."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quancrypt_fl.engines.federation import FederatedRun
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.lm.adapters import Adapter, AdapterOptions
from quancrypt_fl.lm.base import base_model, row_length
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.encoders import encoder_of
from quancrypt_fl.lm.loading import load_config, model_folder
from quancrypt_fl.lm.splits import divide, limited
from quancrypt_fl.lm.texts import LanguageData, Texts, read_sentences, read_text, rows_digest
from quancrypt_fl.lm.trainer import LanguageTrainer, LocalTraining
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.observer import Observer
from quancrypt_fl.training import Evaluation

__all__ = ["Finetuning", "LanguageTask", "metric_of", "value_of"]

_LARGEST_EXPONENT = 700.0  # e^709 is the largest float64


def metric_of(task: str) -> str:
    """What is reported per round: ``"perplexity"`` of a text, ``"accuracy"`` of labels."""
    return "perplexity" if task == "causal" else "accuracy"


def value_of(metric: str, evaluation: Evaluation) -> float:
    """The metric's value: the exponential of the mean cross-entropy, or the accuracy."""
    if metric == "perplexity":
        return math.exp(min(evaluation.loss, _LARGEST_EXPONENT))
    return evaluation.accuracy


class LanguageTask:
    """Texts divided over clients, and an adapter: a :class:`~quancrypt_fl.engines.task.Task`.

    Parameters
    ----------
    config
        What to run, its defaults filled in.

    Attributes
    ----------
    adapter
        Model and adapter.
    data
        Training and test rows.

    Raises
    ------
    ModelError, DataError
        If model or data are absent, broken, or do not fit each other.
    """

    own_buffers: Tensors = {}  # noqa: RUF012  # a mapping that nobody changes

    def __init__(self, config: FinetuneConfig) -> None:
        assert config.alpha is not None
        assert config.sequence_length is not None
        assert config.batch_size is not None
        assert config.local_epochs is not None
        self._config = config
        folder = model_folder(config.model)
        self.data = _data(config, folder)
        base = base_model(
            folder, config.model, config.task, self.data, config.sequence_length, config.seed
        )
        options = AdapterOptions(
            config.mode, config.rank, config.alpha, config.targets(), config.sb_init
        )
        self.adapter = Adapter(base.model, config.task, options, base.fresh, config.seed)
        self.fingerprint = _fingerprint(self.adapter, self.data)
        self.trainer = LanguageTrainer(
            self.adapter,
            LocalTraining(
                config.lr,
                config.weight_decay,
                config.batch_size,
                config.local_epochs,
                config.local_steps,
            ),
            config.seed,
            config.device,
        )
        self.weights: Tensors = self.adapter.weights()
        self.turns = self.adapter.turns
        self.parts, validation = divide(self.data, config)
        self.samples: Mapping[str, Texts] = {"test": self.data.test, "validation": validation}
        self.metric = metric_of(config.task)
        self.judged_by = "loss" if self.metric == "perplexity" else "accuracy"

    def round_begins(self, t: int, parts: Callable[[], Mapping[int, float]]) -> None:
        """Watch the factors of the clients whose updates will arrive."""
        del t
        self.trainer.probe.begin(parts())

    def evaluate(self, part: str, weights: Tensors, clients: Sequence[Client]) -> Evaluation:
        """Judge an adapter."""
        del clients
        return self.trainer.evaluate(weights, self.samples[part])

    def record(self, test: Evaluation) -> dict[str, Any]:
        """The metric's value on the test set, and the error of averaging factors."""
        value = value_of(self.metric, test)
        return {"value": value, "lora_error": self.trainer.probe.error()}

    def about(self) -> dict[str, Any]:
        """Names without folders, and what ``value`` is."""
        return {
            "dataset": self._config.data.name,
            "model": Path(self._config.model).name,
            "task": self._config.task,
            "mode": self._config.mode,
            "metric": self.metric,
        }

    def sizes(self) -> tuple[int, int]:
        """See :meth:`.Adapter.sizes`."""
        return self.adapter.sizes()

    def write(self, folder: Path, weights: Tensors) -> None:
        """Write the adapter; see :meth:`.Adapter.save`."""
        self.adapter.save(folder, weights)


class Finetuning(FederatedRun):
    """One federated fine-tuning.

    Parameters
    ----------
    config
        What to run.
    resume, observer
        As of :class:`~quancrypt_fl.engines.federation.FederatedRun`, whose attributes it has too;
        ``config`` is then the configuration with its defaults filled in.
    """

    config: FinetuneConfig
    task: LanguageTask

    def __init__(
        self, config: FinetuneConfig, *, resume: bool = False, observer: Observer | None = None
    ) -> None:
        resolved = config.resolved()
        length = row_length(resolved.sequence_length, model_folder(resolved.model))
        resolved = resolved.model_copy(update={"sequence_length": length})
        super().__init__(resolved, LanguageTask(resolved), resume=resume, observer=observer)


def _data(config: FinetuneConfig, folder: Path) -> LanguageData:
    assert config.sequence_length is not None
    vocabulary = int(load_config(folder).get_text_config().vocab_size)
    encoder = encoder_of(folder, vocabulary, config.task)
    read = read_text if config.task == "causal" else read_sentences
    data = read(config.data.expanduser(), encoder, config.sequence_length)
    return replace(
        data,
        train=limited(data.train, config.max_train_samples, config.seed, "train-limit"),
        test=limited(data.test, config.max_test_samples, config.seed, "test-limit"),
    )


def _fingerprint(adapter: Adapter, data: LanguageData) -> str:
    """Of the base model, of what is frozen in the adapter, and of all rows."""
    return hashlib.sha256(adapter.fingerprint().encode() + rows_digest(data)).hexdigest()
