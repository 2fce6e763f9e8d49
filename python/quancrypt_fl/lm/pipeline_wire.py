"""What travels between stages: activations as they are, or in 8 bits, over torch's own pipelining.

Tensors alone are sent, of shapes that both sides know beforehand: nothing that a stage receives is
unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from transformers import DynamicCache

from quancrypt_fl.lm.pipeline_split import CutModel
from quancrypt_fl.lm.rounding import dequantize_rows, quantize_rows

__all__ = ["Wire"]


class _Rounded(nn.Module):
    """A cut model between two wires; ``error`` is what its computation raised."""

    def __init__(self, model: CutModel, bits: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.model = model
        self.caches: list[DynamicCache] = []
        self.error: Exception | None = None
        self._bits, self._dtype = bits, dtype

    def forward(self, *received: Tensor, sequence: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        try:
            values = received[0]
            if len(received) > 1:
                values = dequantize_rows(received[0], received[1], self._dtype)
            result: Tensor = self.model(values, self.caches[int(sequence)])
            if self.model.span.ends or self._bits != 8:
                return result.contiguous()
            return quantize_rows(result)
        except Exception as error:
            self.error = error
            raise


class _CountingStage(PipelineStage):
    """Counts the bytes of the tensors that it hands to torch.distributed."""

    sent = 0

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        ops: list[dist.P2POp] = super().get_fwd_send_ops(fwd_chunk_id)
        self.sent += sum(op.tensor.nbytes for op in ops)
        return ops


class Wire:
    """One stage of the pipeline, as the others see it.

    Every sequence is a micro-batch of GPipe's schedule: with several of them all stages are busy.

    Parameters
    ----------
    model
        The layers of this stage.
    stage, stages
        Number of this stage, from 0, and how many there are.
    hidden, dtype
        Width and type of activations.
    vocabulary
        Width of logits.
    bits
        8 or 32; see :class:`~quancrypt_fl.lm.pipeline_job.PipelineJob`.
    sequences
        How many there are; each has a cache of its own.
    """

    def __init__(
        self,
        model: CutModel,
        stage: int,
        stages: int,
        *,
        hidden: int,
        vocabulary: int,
        dtype: torch.dtype,
        bits: int,
        sequences: int,
    ) -> None:
        self._module = _Rounded(model, bits, dtype)
        self._module.caches = [model.new_cache() for _ in range(sequences)]
        self._stage, self._stages = stage, stages
        self._hidden, self._vocabulary, self._dtype, self._bits = hidden, vocabulary, dtype, bits
        self._schedules: dict[int, tuple[_CountingStage, ScheduleGPipe]] = {}
        self._sent = 0

    @property
    def sent(self) -> int:
        """Bytes of activations that this stage has sent."""
        return self._sent

    @property
    def error(self) -> Exception | None:
        """What the model's computation raised, as opposed to a connection."""
        return self._module.error

    @property
    def cache_bytes(self) -> int:
        """Bytes of keys and values."""
        layers: list[Any] = [layer for cache in self._module.caches for layer in cache.layers]
        kept = [tensor for layer in layers for tensor in (layer.keys, layer.values)]
        return sum(int(tensor.nbytes) for tensor in kept if tensor is not None)

    def step(self, tokens: Tensor, sequences: Sequence[int]) -> Tensor | None:
        """Take sequences further by the same number of tokens each.

        Parameters
        ----------
        tokens
            Shape (sequences, tokens), int64. Only the first stage looks at the values.
        sequences
            Numbers of the sequences.

        Returns
        -------
        Tensor or None
            Logits of the last tokens, shape (sequences, vocabulary), in the last stage.
        """
        count, length = tokens.shape
        stage, schedule = self._schedule(count, length)
        before = stage.sent
        given = (tokens,) if self._stage == 0 else ()
        with torch.no_grad():
            result = schedule.step(*given, sequence=torch.tensor(sequences))
        self._sent += stage.sent - before
        return None if result is None else result[:, -1]

    def _schedule(self, count: int, length: int) -> tuple[_CountingStage, ScheduleGPipe]:
        """For so many sequences; those for single tokens are kept, prompts come but once."""
        if length == 1 and count in self._schedules:
            return self._schedules[count]
        stage = _CountingStage(
            self._module,
            self._stage,
            self._stages,
            torch.device("cpu"),
            input_args=self._shapes(self._stage, length),
            output_args=self._shapes(self._stage + 1, length),
        )
        made = stage, ScheduleGPipe(stage, n_microbatches=count)
        if length == 1:
            self._schedules[count] = made
        return made

    def _shapes(self, stage: int, length: int) -> tuple[Tensor, ...]:
        """What a stage receives, without storage; of the stage after the last one, logits."""
        if stage == 0:
            return (torch.empty((1, length), dtype=torch.long, device="meta"),)
        if stage == self._stages:
            return (torch.empty((1, 1, self._vocabulary), dtype=self._dtype, device="meta"),)
        shape = (1, length, self._hidden)
        if self._bits != 8:
            return (torch.empty(shape, dtype=self._dtype, device="meta"),)
        return (
            torch.empty(shape, dtype=torch.int8, device="meta"),
            torch.empty((1, length, 1), dtype=torch.float32, device="meta"),
        )
