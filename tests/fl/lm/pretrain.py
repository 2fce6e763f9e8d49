"""DiLoCo and data parallelism in plain torch: what the federation is compared with.

Nothing of the product is used but the batches that it draws and the loss of a batch: every worker
has a model and an AdamW of its own, which lives as long as the worker.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quancrypt_fl.lm.pretrain_config import PretrainConfig
from quancrypt_fl.lm.pretrain_run import PretrainTask
from quancrypt_fl.lm.texts import Texts

Weights = dict[str, NDArray[np.float32]]


class Worker:
    """A model and its AdamW."""

    def __init__(self, model: nn.Module, config: PretrainConfig) -> None:
        self.model = copy.deepcopy(model).train()
        self._clip = config.gradient_clip
        self._adamw = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        warmup = config.warmup_steps
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adamw, lambda done: min(1.0, (done + 1) / max(1, warmup))
        )

    def step(self, tokens: Tensor, labels: Tensor) -> None:
        """One step along the gradient of some rows."""
        self._adamw.zero_grad()
        scores = self.model(input_ids=tokens).logits
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self._clip)
        self._adamw.step()
        self._schedule.step()

    def load(self, model: nn.Module) -> None:
        """Take over weights; AdamW keeps its state."""
        self.model.load_state_dict(model.state_dict())

    def weights(self) -> Weights:
        return {n: p.detach().numpy().copy() for n, p in self.model.named_parameters()}


def diloco(task: PretrainTask, config: PretrainConfig) -> Weights:
    """The weights after all rounds, of clients that count alike."""
    outer = copy.deepcopy(task.trainer.model)
    workers = [Worker(outer, config) for _ in task.parts]
    sgd = torch.optim.SGD(
        outer.parameters(),
        lr=config.outer_lr,
        momentum=config.outer_momentum,
        nesterov=config.outer_momentum > 0,
    )
    for t in range(config.rounds):
        for k, (worker, part) in enumerate(zip(workers, task.parts, strict=True)):
            worker.load(outer)
            for rows in task.trainer.batches(len(part), t, k):
                worker.step(*_tensors(part, rows))
        moved = [dict(worker.model.named_parameters()) for worker in workers]
        for name, parameter in outer.named_parameters():
            mean = torch.stack([own[name].detach() for own in moved]).mean(dim=0)
            parameter.grad = parameter.detach() - mean
        sgd.step()
    return {name: p.detach().numpy() for name, p in outer.named_parameters()}


def data_parallel(task: PretrainTask, config: PretrainConfig) -> Weights:
    """One worker that has the batches of all."""
    worker = Worker(task.trainer.model, config)
    for t in range(config.rounds):
        batches = [task.trainer.batches(len(part), t, k) for k, part in enumerate(task.parts)]
        for rows in zip(*batches, strict=True):
            pairs = [_tensors(part, own) for part, own in zip(task.parts, rows, strict=True)]
            tokens, labels = (torch.cat(both) for both in zip(*pairs, strict=True))
            worker.step(tokens, labels)
    return worker.weights()


def _tensors(part: Texts, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(part.inputs[rows]), torch.from_numpy(part.labels[rows])
