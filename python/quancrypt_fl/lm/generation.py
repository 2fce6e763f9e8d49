"""Text, one token after another, from a model with a key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

from quancrypt_fl.errors import ConfigError
from quancrypt_fl.seeds import derive_seed

__all__ = ["Chooser", "Sampling", "check_lengths", "end_tokens", "generate"]

_NO_TOKENS = torch.empty((1, 0), dtype=torch.long)  # these warpers look at logits alone


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and how many.

    Attributes
    ----------
    max_new_tokens
        At least 1.
    temperature
        0: the likeliest token. Otherwise logits are divided by it.
    top_k
        Draw from so many of the likeliest tokens; 0: from all.
    seed
        Of the draws.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max-new-tokens = {self.max_new_tokens}; allowed: 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(
                f"temperature = {self.temperature:g}; allowed: 0 (the likeliest token) or more"
            )
        if self.top_k < 0:
            raise ConfigError(f"top-k = {self.top_k}; allowed: 0 (all tokens) or more")
        if self.top_k and not self.temperature:
            raise ConfigError("top-k goes with a temperature above 0; at 0 nothing is drawn")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}; allowed: 0 or more")


class Chooser:
    """Chooses tokens of one sequence; the same draws wherever it runs.

    Parameters
    ----------
    sampling
        See there.
    sequence
        Number of the sequence: each has draws of its own.
    """

    def __init__(self, sampling: Sampling, sequence: int = 0) -> None:
        self._greedy = sampling.temperature == 0
        self._warp = LogitsProcessorList()
        if not self._greedy:
            self._warp.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_k:
                self._warp.append(TopKLogitsWarper(sampling.top_k))
        self._generator = torch.Generator()
        self._generator.manual_seed(derive_seed(sampling.seed, "sampling", sequence))

    def choose(self, logits: Tensor) -> int:
        """A token, by the logits of shape (vocabulary,) that follow a sequence."""
        row = logits.detach().float().cpu()
        if self._greedy:
            return int(row.argmax())
        warped = self._warp(_NO_TOKENS, row[None])  # type: ignore[arg-type]
        return int(torch.multinomial(warped.softmax(dim=-1), 1, generator=self._generator))


def end_tokens(config: PreTrainedConfig) -> frozenset[int]:
    """Tokens that end a text; none for a model that knows none."""
    ends = getattr(config, "eos_token_id", None)
    if ends is None:
        return frozenset()
    return frozenset(ends) if isinstance(ends, Sequence) else frozenset((int(ends),))


def check_lengths(config: PreTrainedConfig, prompts: Sequence[Sequence[int]], new: int) -> None:
    """Raise :class:`ConfigError` where a prompt is empty, or too long to be continued."""
    most = getattr(config, "max_position_embeddings", None)
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            raise ConfigError(f"prompt {number} has no tokens; allowed: at least one")
        if most is not None and len(prompt) + new > most:
            raise ConfigError(
                f"prompt {number}: {len(prompt):,} + {new:,} tokens, its own and new ones; "
                f"allowed: {most:,} together, the context of this model"
            )


def generate(
    model: PreTrainedModel,
    prompt: Sequence[int],
    sampling: Sampling,
    sequence: int = 0,
    ends: frozenset[int] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Continue a prompt in this process.

    Parameters
    ----------
    model
        A causal language model in evaluation mode.
    prompt
        Token numbers.
    sampling, sequence
        See :class:`Chooser`.
    ends
        Tokens that end the text; None: those of the model.

    Yields
    ------
    token, logits
        A new token, and the logits of shape (vocabulary,) that it was chosen by. The token that
        ends a text is the last one.
    """
    check_lengths(model.config, [prompt], sampling.max_new_tokens)
    chooser = Chooser(sampling, sequence)
    ends = end_tokens(model.config) if ends is None else ends
    cache = DynamicCache(config=model.config)
    fresh = list(prompt)
    for _ in range(sampling.max_new_tokens):
        ids = torch.tensor([fresh], device=model.device)
        with torch.no_grad():  # not across yield: it is the thread's
            logits = model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1).logits
        token = chooser.choose(logits[0, -1])
        yield token, logits[0, -1]
        if token in ends:
            return
        fresh = [token]
