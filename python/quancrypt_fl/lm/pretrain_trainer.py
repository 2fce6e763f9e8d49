"""DiLoCo's inner optimization: AdamW on one client's rows, its state kept from round to round.

DiLoCo (arXiv 2311.08105) leaves each worker's AdamW its moments from one round to the next, and
does not exchange them: averaging them would send three times as much. Here they are tensors that
stay with their client (:attr:`.Client.own_buffers`), and a checkpoint keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from quancrypt_fl.lm.evaluation import cross_entropy, evaluate_texts, scores
from quancrypt_fl.lm.texts import Texts
from quancrypt_fl.method.roles import Tensors
from quancrypt_fl.seeds import derive_seed, generator
from quancrypt_fl.training import Evaluation, seeded, torch_device

__all__ = ["InnerOptions", "InnerTrainer", "Rows"]

Rows = NDArray[np.int64]
"""Rows of a batch, by index."""

_STEP = "adamw.step"
_MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names


@dataclass(frozen=True)
class InnerOptions:
    """AdamW's rate and weight decay, rows per batch, steps of a round, warm-up, clipping."""

    lr: float
    weight_decay: float
    batch_size: int
    steps: int
    warmup: int
    gradient_clip: float


class InnerTrainer:
    """A model, loaded with the weights of whoever trains or evaluates next.

    Parameters
    ----------
    model
        Causal, in float32.
    options
        Local training.
    seed
        Decides the order of rows, and dropout if the model has it.
    device
        ``"cpu"`` or ``"cuda"``; see :class:`quancrypt_fl.training.Trainer`.

    Attributes
    ----------
    tokens
        Tokens predicted in training since it was last set to 0.
    """

    def __init__(
        self, model: PreTrainedModel, options: InnerOptions, seed: int, device: str = "cpu"
    ) -> None:
        self.model = model
        self.options = options
        self._seed = seed
        self._device = torch_device(device)
        model.to(self._device)  # type: ignore[arg-type]
        self._parameters = dict(model.named_parameters())
        self.tokens = 0

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """A copy of all parameters; those that are tied are one."""
        return {name: _array(parameter) for name, parameter in self._parameters.items()}

    def fresh_state(self) -> dict[str, NDArray[np.float32]]:
        """AdamW's state before its first step."""
        moments = {
            _moment(which, name): np.zeros(tuple(parameter.shape), np.float32)
            for name, parameter in self._parameters.items()
            for which in _MOMENTS
        }
        return {_STEP: np.zeros((), np.float32), **moments}

    def load(self, weights: Tensors) -> None:
        """Take over weights."""
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(torch.from_numpy(weights[name]))

    def train(
        self, weights: Tensors, samples: Texts, t: int, client: int
    ) -> tuple[dict[str, NDArray[np.float32]], float]:
        """The steps of round ``t`` on a client's rows.

        Parameters
        ----------
        weights
            Global weights, and the client's own state of AdamW.

        Returns
        -------
        weights : dict
            The same, trained.
        loss : float
            Mean loss over the rows seen.
        """
        self.load(weights)
        optimizer = self.optimizer(weights)
        with seeded(derive_seed(self._seed, "training", t, client), self._device):
            loss = self.descend(optimizer, [(samples, self.batches(len(samples), t, client))])
        return {**self.weights(), **self._state(optimizer)}, loss

    def batches(self, rows: int, t: int, client: int) -> Sequence[Rows]:
        """The rows of each step of a client's round: all once in random order, then again.

        Batches are full, so that every step reads as much.
        """
        rng = generator(self._seed, "batches", t, client)
        needed = self.options.batch_size * self.options.steps
        order = np.concatenate([rng.permutation(rows) for _ in range(-(-needed // rows))])
        return np.split(order[:needed], self.options.steps)

    def optimizer(self, state: Tensors) -> torch.optim.AdamW:
        """AdamW of the model's parameters, in a state as :meth:`fresh_state` gives it."""
        options = self.options
        optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=options.lr, weight_decay=options.weight_decay, fused=True
        )
        for name, parameter in self._parameters.items():
            optimizer.state[parameter] = {
                "step": self._tensor(state[_STEP]),
                **{which: self._tensor(state[_moment(which, name)]) for which in _MOMENTS},
            }
        return optimizer

    def descend(
        self, optimizer: torch.optim.AdamW, workers: Sequence[tuple[Texts, Sequence[Rows]]]
    ) -> float:
        """The steps of a round, each along the mean gradient of all workers' batches.

        Returns
        -------
        float
            Mean loss over the rows seen.
        """
        self.model.train()
        done = int(next(iter(optimizer.state.values()))["step"])
        loss_sum, seen = 0.0, 0
        for step in range(self.options.steps):
            optimizer.zero_grad(set_to_none=True)
            for samples, batches in workers:
                rows = batches[step]
                loss = cross_entropy(*scores(self.model, samples, rows), "mean")
                (loss / len(workers)).backward()  # type: ignore[no-untyped-call]
                loss_sum += float(loss.detach()) * len(rows)
                seen += len(rows)
                self.tokens += int(samples.lengths[rows].sum())
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.gradient_clip)
            optimizer.param_groups[0]["lr"] = self._rate(done + step)
            optimizer.step()
        return loss_sum / seen

    def evaluate(self, weights: Tensors, samples: Texts) -> Evaluation:
        """Share of tokens guessed, and mean cross-entropy over all that are predicted."""
        self.load(weights)
        self.model.eval()  # type: ignore[no-untyped-call]
        return evaluate_texts(self.model, samples)

    def warm_up(self) -> None:
        """One pass on a made-up row: what torch does but once is not part of a round's time."""
        row = Texts(np.zeros((1, 2), np.int64), np.full(1, 2), np.zeros((1, 2), np.int64))
        with seeded(0, self._device):
            loss = cross_entropy(*scores(self.model, row, np.arange(1)), "mean")
            loss.backward()  # type: ignore[no-untyped-call]
        self.model.zero_grad(set_to_none=True)

    def _rate(self, done: int) -> float:
        return self.options.lr * min(1.0, (done + 1) / max(1, self.options.warmup))

    def _state(self, optimizer: torch.optim.AdamW) -> dict[str, NDArray[np.float32]]:
        steps = [float(kept["step"]) for kept in optimizer.state.values()]
        moments = {
            _moment(which, name): _array(optimizer.state[parameter][which])
            for name, parameter in self._parameters.items()
            for which in _MOMENTS
        }
        return {_STEP: np.array(max(steps), np.float32), **moments}

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.tensor(array, device=self._device)  # a copy: steps change it in place


def _moment(which: str, name: str) -> str:
    return f"adamw.{which}.{name}"


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.array(tensor.detach().cpu().numpy(), order="C")
