"""Frozen base models in 4 bits, as in QLoRA (arXiv 2305.14314), by bitsandbytes.

Blocks of 64 weights share a scale, and each weight is one of 16 values that are equally likely in a
normal distribution (NF4). Products are computed in float32. Adapters and fresh heads stay float32.

On processors with AVX512-BF16 the package would pack weights anew at the first evaluation and round
their scales to bfloat16: evaluating would change the model, and clients on other machines would
have another one. That is switched off.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from quancrypt_fl.lm.loading import ModelError

__all__ = ["floating_weight", "quantization", "settle"]

_BLOCK = 64
_KEPT = ["lm_head", "classifier", "score", "pooler", r".*multi_modal_projector"]
"""Modules that stay float32: output layers, and what is trained whole."""


def quantization(precision: str) -> dict[str, Any]:
    """What ``from_pretrained`` takes for a base of this precision, ``"float32"`` or ``"nf4"``.

    Raises
    ------
    ModelError
        If it needs a package that is not installed.
    """
    if precision == "float32":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"base_precision = {precision!r} needs the package bitsandbytes: "
            "pip install 'quancrypt-native[qlora]'"
        )
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=_KEPT,
    )
    return {"quantization_config": config}


def floating_weight(module: nn.Module) -> Tensor:
    """A layer's weight in float32, whatever it is stored in."""
    weight = dequantize_module_weight(module)
    return weight.detach().float()


def settle(model: nn.Module) -> None:
    """Let layers of 4 bits keep what they were loaded with; nothing to do for others.

    Raises
    ------
    ModelError
        If a layer's rows do not consist of whole blocks, which the package gets wrong on CPUs.
    """
    for name, module in model.named_modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        module.support_avx512bf16_for_cpu = False
        if (inputs := int(module.in_features)) % _BLOCK:
            raise ModelError(
                f"base_precision = 'nf4': {name} has {inputs} inputs; allowed: layers with a "
                f"multiple of {_BLOCK}, or base_precision = 'float32'"
            )
