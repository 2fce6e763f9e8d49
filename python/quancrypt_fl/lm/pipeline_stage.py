"""One stage of a pipeline, from its weights to the last token: the same loop in every process.

The last stage chooses tokens and tells all others; each knows from them which sequences go on.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from transformers import PreTrainedConfig

from quancrypt_fl.lm.generation import Chooser, check_lengths, end_tokens
from quancrypt_fl.lm.loading import ModelError, load_config, weight_files
from quancrypt_fl.lm.pipeline_job import PipelineJob
from quancrypt_fl.lm.pipeline_lost import StageLostError, who_is_lost
from quancrypt_fl.lm.pipeline_split import Span, cut, spans
from quancrypt_fl.lm.pipeline_weights import load_weights, weight_bytes
from quancrypt_fl.lm.pipeline_wire import Wire

__all__ = ["LOGITS", "check_job", "job_digest", "run_stage"]

LOGITS = "logits.safetensors"
"""File in :attr:`PipelineJob.logits`: a tensor for each sequence, shape (tokens, vocabulary)."""

_TOKEN_BYTES = 8
_FIELDS = ("first", "last", "weight_bytes", "cache_bytes", "peak_rss_bytes", "sent_bytes")

OnToken = Callable[[int, int], None]
"""Gets the number of a sequence, and a token."""


def check_job(job: PipelineJob, stages: int) -> PreTrainedConfig:
    """The model's configuration, if the job can be done in so many stages.

    Raises
    ------
    ModelError, ConfigError
        If not.
    """
    config = load_config(job.folder)
    weight_files(job.folder)
    cut(config, spans(config.num_hidden_layers, stages)[0])  # knows the architecture, or says so
    check_lengths(config, job.prompts, job.sampling.max_new_tokens)
    return config


def run_stage(
    job: PipelineJob, stage: int, stages: int, store: Store, on_token: OnToken
) -> dict[str, Any] | None:
    """Be one stage of a pipeline; the process can be none other afterwards.

    Parameters
    ----------
    job
        The same for all stages, apart from ``folder`` and ``threads``.
    stage, stages
        Number of this one, from 0, and how many there are.
    store
        By which the stages find each other.
    on_token
        Told of each token, in the first stage.

    Returns
    -------
    dict or None
        Stages, seconds and bytes, in the first stage.

    Raises
    ------
    StageLostError
        If another stage ended or does not answer.
    """
    torch.set_num_threads(job.threads)
    started = time.perf_counter()
    config = check_job(job, stages)
    span = spans(config.num_hidden_layers, stages)[stage]
    model = cut(config, span)
    load_weights(model, config, job.folder)
    wire = Wire(
        model,
        stage,
        stages,
        hidden=config.hidden_size,
        vocabulary=config.vocab_size,
        dtype=model.base.dtype,
        bits=job.activation_bits,
        sequences=len(job.prompts),
    )
    with _losing(store, wire, stage, stages):
        dist.init_process_group(
            "gloo",
            store=PrefixStore("gloo", store),
            rank=stage,
            world_size=stages,
            timeout=timedelta(seconds=job.timeout),
        )
        _agree(job, config, stage, stages)
        loaded = time.perf_counter() - started
        told = on_token if stage == 0 else _nothing
        prefill, decode, steps = _Loop(job, config, wire, stage, stages, told).run()
        figures = _gather(_figures(span, weight_bytes(model), wire), stages)
        dist.destroy_process_group()
    if stage != 0:
        return None
    return {
        "stages": figures,
        "seconds": {"load": loaded, "prefill": prefill, "decode": decode},
        "decoded": steps,
        "token_bytes": _TOKEN_BYTES * (stages - 1),
    }


class _Loop:
    """Prompts first, each in one piece; then a token of every sequence that goes on, together."""

    def __init__(
        self,
        job: PipelineJob,
        config: PreTrainedConfig,
        wire: Wire,
        stage: int,
        stages: int,
        on_token: OnToken,
    ) -> None:
        self._job, self._wire, self._last, self._on_token = job, wire, stages - 1, on_token
        self._ends = end_tokens(config)
        self._chooses = stage == self._last
        self._choosers = [Chooser(job.sampling, s) for s in range(len(job.prompts))]
        self._logits: dict[int, list[Tensor]] = {s: [] for s in range(len(job.prompts))}

    def run(self) -> tuple[float, float, int]:
        """Seconds of the prompts, seconds of the other tokens, and how many those are."""
        started = time.perf_counter()
        everyone = list(range(len(self._job.prompts)))
        tokens = torch.zeros(len(everyone), dtype=torch.long)
        for sequence, prompt in enumerate(self._job.prompts):
            logits = self._wire.step(torch.tensor([prompt]), [sequence])
            self._choose(logits, [sequence], tokens[sequence : sequence + 1])
        going = self._tell(tokens, everyone)
        prefill = time.perf_counter() - started
        decoded = 0
        for _ in range(self._job.sampling.max_new_tokens - 1):
            if not going:
                break
            tokens = tokens[[everyone.index(sequence) for sequence in going]]
            everyone = going
            self._choose(self._wire.step(tokens[:, None], going), going, tokens)
            decoded += len(going)
            going = self._tell(tokens, going)
        self._write_logits()
        return prefill, time.perf_counter() - started - prefill, decoded

    def _choose(self, logits: Tensor | None, sequences: Sequence[int], tokens: Tensor) -> None:
        """Fill in the next tokens, in the last stage."""
        if logits is None:
            return
        for place, sequence in enumerate(sequences):
            tokens[place] = self._choosers[sequence].choose(logits[place])
            if self._job.logits is not None:
                self._logits[sequence].append(logits[place].float())

    def _tell(self, tokens: Tensor, sequences: Sequence[int]) -> list[int]:
        """Give the last stage's tokens to all; the sequences that go on."""
        dist.broadcast(tokens, src=self._last)
        for sequence, token in zip(sequences, tokens.tolist(), strict=True):
            self._on_token(sequence, token)
        return [
            sequence
            for sequence, token in zip(sequences, tokens.tolist(), strict=True)
            if token not in self._ends
        ]

    def _write_logits(self) -> None:
        if self._job.logits is not None and self._chooses:
            tensors = {str(s): torch.stack(rows) for s, rows in self._logits.items()}
            save_file(tensors, self._job.logits / LOGITS)


@contextmanager
def _losing(store: Store, wire: Wire, stage: int, stages: int) -> Iterator[None]:
    """Tell the loss of a connection from everything else that can go wrong."""
    try:
        yield
    except RuntimeError as error:  # what torch.distributed raises is one
        if wire.error is not None:
            raise wire.error from None
        raise StageLostError(who_is_lost(store, stage, stages, error)) from error


def _agree(job: PipelineJob, config: PreTrainedConfig, stage: int, stages: int) -> None:
    """Raise :class:`ModelError` unless all stages were given the same job and model."""
    own = torch.frombuffer(bytearray(job_digest(job, config)), dtype=torch.uint8)
    for other, theirs in enumerate(_all_gather(own, stages)):
        if not torch.equal(own, theirs):
            raise ModelError(
                f"stage {other + 1} has other options, other prompts or another model than stage "
                f"{stage + 1}; start all stages with the same command and the same files"
            )


def job_digest(job: PipelineJob, config: PreTrainedConfig) -> bytes:
    """SHA-256 of all that has to be the same in all stages; weights are not read for it."""
    same = replace(job, folder=Path(), threads=1, logits=None)
    model = json.dumps(config.to_diff_dict(), sort_keys=True, default=str)
    return hashlib.sha256(f"{same.to_json()}\n{model}".encode()).digest()


@dataclass(frozen=True)
class _Stage:
    """Figures of a stage, as numbers that travel."""

    values: tuple[int, ...]

    def document(self, number: int) -> dict[str, Any]:
        named = dict(zip(_FIELDS, self.values, strict=True))
        layers = [named.pop("first") + 1, named.pop("last")]
        return {"stage": number, "layers": layers, **named}


def _figures(span: Span, weights: int, wire: Wire) -> _Stage:
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _Stage((span.first, span.last, weights, wire.cache_bytes, peak, wire.sent))


def _gather(figures: _Stage, stages: int) -> list[dict[str, Any]]:
    gathered = _all_gather(torch.tensor(figures.values), stages)
    return [
        _Stage(tuple(values.tolist())).document(number)
        for number, values in enumerate(gathered, start=1)
    ]


def _all_gather(own: Tensor, stages: int) -> list[Tensor]:
    gathered = [torch.empty_like(own) for _ in range(stages)]
    dist.all_gather(gathered, own)
    return gathered


def _nothing(sequence: int, token: int) -> None:
    del sequence, token
