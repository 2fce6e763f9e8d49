"""A pipeline's logits beside those of the whole model in one process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from quancrypt_fl.lm.loading import load_model
from quancrypt_fl.lm.pipeline_job import PipelineJob
from quancrypt_fl.lm.pipeline_stage import LOGITS

__all__ = ["compare"]


def compare(job: PipelineJob, tokens: Sequence[Sequence[int]], folder: Path) -> dict[str, Any]:
    """Run the model over prompts and tokens in one pass, without a cache.

    Parameters
    ----------
    job
        What the pipeline did.
    tokens
        New tokens of each prompt.
    folder
        Where the last stage wrote its logits.

    Returns
    -------
    dict
        ``largest_difference`` of a logit, ``largest_logit`` (absolute), ``same_choice``: share of
        tokens whose likeliest one is the same, and ``tokens``.
    """
    model = load_model(job.folder)
    stored = load_file(folder / LOGITS)
    difference = largest = 0.0
    same = total = 0
    for number, (prompt, new) in enumerate(zip(job.prompts, tokens, strict=True)):
        ids = torch.tensor([[*prompt, *new[:-1]]])
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :].float()
        actual = stored[str(number)]
        difference = max(difference, float((actual - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
        same += int((actual.argmax(dim=-1) == expected.argmax(dim=-1)).sum())
        total += len(new)
    return {
        "largest_difference": difference,
        "largest_logit": largest,
        "same_choice": same / total,
        "tokens": total,
    }
