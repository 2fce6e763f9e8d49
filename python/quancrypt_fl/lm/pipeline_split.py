"""A causal language model cut by layers: each stage is the model's own class with fewer of them.

Masks, positions, caches and kernels are those of the whole model, so its numbers are too. The first
stage has the token embedding, the last one the final norm and the output layer, which is a copy
where the model ties both. Cut models exist without weights until :mod:`.pipeline_weights` loads
those of their layers, so a process never holds another stage's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedConfig, PreTrainedModel

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.loading import ModelError

__all__ = ["ARCHITECTURES", "Anatomy", "CutModel", "Span", "anatomy", "cut", "spans"]


@dataclass(frozen=True)
class Anatomy:
    """Names of a base model's parts."""

    layers: str
    attention: str
    embedding: str
    norm: str
    positions: str | None = None  # a table of positions that the first stage alone adds


_LLAMA = Anatomy("layers", "self_attn", "embed_tokens", "norm")
ARCHITECTURES = {
    "gpt2": Anatomy("h", "attn", "wte", "ln_f", "wpe"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
}
"""By ``model_type``. Others may do more between embedding and layers than this cut knows of."""


@dataclass(frozen=True)
class Span:
    """Layers ``first`` to ``last - 1`` of ``total``, counted from 0."""

    first: int
    last: int
    total: int

    @property
    def begins(self) -> bool:
        """Whether the embedding is here."""
        return self.first == 0

    @property
    def ends(self) -> bool:
        """Whether the output layer is here."""
        return self.last == self.total


def anatomy(config: PreTrainedConfig) -> Anatomy:
    """The parts of a model; :class:`ModelError` if its architecture is none of those known."""
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"models of type {kind!r} are not split; allowed: {', '.join(ARCHITECTURES)} "
            "(quancrypt lm generate runs any causal model in one process)"
        )
    if getattr(config, "add_cross_attention", False):
        raise ModelError("a model with cross-attention is not split: its layers need an encoder")
    return ARCHITECTURES[kind]


def spans(layers: int, stages: int) -> list[Span]:
    """Even shares of the layers; what is over goes to the first stages.

    Raises
    ------
    ConfigError
        If a stage would have no layer.
    """
    if not 1 <= stages <= layers:
        raise ConfigError(
            f"stages = {stages}: the model has {layers} layers; allowed: 1 to {layers}"
        )
    share, over = divmod(layers, stages)
    ends = [0]
    for stage in range(stages):
        ends.append(ends[-1] + share + (stage < over))
    return [Span(first, last, layers) for first, last in pairwise(ends)]


class _NoPositions(nn.Module):
    """In later stages: positions are in the activations already."""

    def forward(self, positions: Tensor) -> Tensor:
        return torch.zeros((), device=positions.device)


class CutModel(nn.Module):
    """The layers of one span, with what comes before the first and after the last layer.

    Parameters
    ----------
    base
        The base model, cut.
    head
        The output layer; None where the span does not reach the end.
    span
        See there.
    """

    def __init__(self, base: PreTrainedModel, head: nn.Module | None, span: Span) -> None:
        super().__init__()
        self.base = base
        self.head = head
        self.span = span

    def new_cache(self) -> DynamicCache:
        """Keys and values of these layers, none yet."""
        return DynamicCache(config=self.base.config)

    def forward(self, values: Tensor, cache: DynamicCache) -> Tensor:
        """Go on with the tokens that follow those in the cache.

        Parameters
        ----------
        values
            Token numbers, shape (1, tokens), in the first stage; activations, shape
            (1, tokens, hidden), in others.

        Returns
        -------
        Tensor
            Activations, shape (1, tokens, hidden); in the last stage logits of the last token,
            shape (1, 1, vocabulary).
        """
        given = {"input_ids" if self.span.begins else "inputs_embeds": values}
        hidden: Tensor = self.base(**given, cache=cache, use_cache=True).last_hidden_state
        if self.head is None:
            return hidden
        logits: Tensor = self.head(hidden[:, -1:])
        return logits


def cut(config: PreTrainedConfig, span: Span) -> CutModel:
    """The part of a model that a stage runs, in evaluation mode, with parameters on ``meta``.

    Buffers that no file holds, such as the frequencies of rotary positions, are real.
    """
    names = anatomy(config)
    dtype = getattr(config, "dtype", None) or torch.float32
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            copy.deepcopy(config), dtype=dtype
        )
    base: Any = model.base_model
    layers = list(getattr(base, names.layers))[span.first : span.last]
    for index, layer in enumerate(layers):
        getattr(layer, names.attention).layer_idx = index  # its place in this stage's cache
    setattr(base, names.layers, nn.ModuleList(layers))
    if getattr(base.config, "layer_types", None):
        base.config.layer_types = base.config.layer_types[span.first : span.last]
    base.config.num_hidden_layers = len(layers)
    head = model.get_output_embeddings() if span.ends else None
    if not span.begins:
        setattr(base, names.embedding, None)
        if names.positions:
            setattr(base, names.positions, _NoPositions())
    if head is not None:
        # Of its own, also where the whole model ties it: the embedding may be in another process.
        head.weight = nn.Parameter(torch.empty_like(head.weight), requires_grad=False)
    else:
        setattr(base, names.norm, nn.Identity())
    return CutModel(base, head, span).eval()
