"""A federation that fine-tunes the adapter of a model of language, with or without pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quancrypt_fl.engines.federation import FederatedRun
from quancrypt_fl.engines.parties import Client
from quancrypt_fl.lm.adapters import Adapter, AdapterOptions
from quancrypt_fl.lm.base import row_length
from quancrypt_fl.lm.config import FinetuneConfig
from quancrypt_fl.lm.loading import model_folder
from quancrypt_fl.lm.metrics import metric_of, value_from
from quancrypt_fl.lm.rows import DataSet, Rows
from quancrypt_fl.lm.splits import divide
from quancrypt_fl.lm.tasks import prepare
from quancrypt_fl.lm.trainer import LanguageTrainer, LocalTraining
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.observer import Observer
from quancrypt_fl.training import Evaluation

__all__ = ["Finetuning", "LanguageTask", "metric_of", "value_of"]


def value_of(metric: str, evaluation: Evaluation) -> float:
    """See :func:`.metrics.value_from`."""
    return value_from(metric, accuracy=evaluation.accuracy, loss=evaluation.loss)


class LanguageTask:
    """Rows divided over clients, and an adapter: a :class:`~quancrypt_fl.engines.task.Task`.

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
        self._config = config
        prepared = prepare(config, model_folder(config.model))
        self.data = prepared.data
        options = AdapterOptions(
            config.mode, config.rank, config.alpha, prepared.base.targets, config.sb_init
        )
        self.adapter = Adapter(
            prepared.base.model, config.task, options, prepared.base.whole, config.seed
        )
        self.fingerprints = {
            "base model": self.adapter.fingerprint(),
            "data": hashlib.sha256(prepared.digest).hexdigest(),
        }
        self.trainer = LanguageTrainer(
            self.adapter,
            prepared.scores,
            LocalTraining(
                config.lr,
                config.weight_decay,
                config.batch_size,
                config.local_epochs or 1,
                config.local_steps,
            ),
            config.seed,
            self.data.train,
            config.device,
            config.ranks(),
        )
        self.weights: Tensors = self.adapter.weights()
        self.turns = self.adapter.turns
        whole = (name for name in self.weights if ".lora_" not in name)
        self.parts, validation, self.trained_by = _divided(self.data, config, whole)
        self.samples: Mapping[str, Rows] = {"test": self.data.test, "validation": validation}
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


def _divided(
    data: DataSet, config: FinetuneConfig, whole: Iterable[str]
) -> tuple[list[Any], Any, Mapping[str, frozenset[int]]]:
    """The rows of each client and those for validation; see :attr:`.Task.trained_by`."""
    parts, validation = divide(data, config)
    able = config.clients - config.text_only_clients
    if able == config.clients:
        return parts, validation, {}
    parts[able:] = [part.without_pictures() for part in parts[able:]]
    return parts, validation, dict.fromkeys(whole, frozenset(range(able)))
