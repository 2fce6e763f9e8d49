"""``quancrypt lm generate``: a first look at what a model writes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_streaming import Shown, printable_text
from quancrypt_fl.cli.lm_text_options import (
    Adapter,
    MaxNewTokens,
    Model,
    Prompts,
    Seed,
    Temperature,
    Threads,
    TopK,
    require_language_models,
)
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import print_json

__all__ = ["generate"]


def generate(
    model: Model,
    prompt: Prompts,
    adapter: Adapter = None,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 1,
    threads: Threads = None,
    json_only: JsonOnly = False,
) -> None:
    """Continue a prompt with a model: a whole one, an int8 one, or one with an adapter on it."""
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.lm.codecs import codec_of
        from quancrypt_fl.lm.generation import Sampling
        from quancrypt_fl.lm.generation import generate as continued
        from quancrypt_fl.lm.loading import load_config, model_folder
        from quancrypt_fl.lm.opening import open_model, plain_model
        from quancrypt_fl.training import torch_threads

    sampling = Sampling(max_new_tokens, temperature, top_k, seed)
    folder = model_folder(model)
    opened = open_model(folder if adapter is None else adapter, "causal", folder)
    codec = codec_of(opened.tokenizer_folder, load_config(opened.tokenizer_folder))
    shown = Shown(codec, len(prompt), silent=json_only)
    prompts = [codec.encode(text) for text in prompt]
    with torch_threads(threads) if threads else nullcontext():
        started = time.perf_counter()
        for sequence, tokens in enumerate(prompts):
            for token, _ in continued(plain_model(opened.model), tokens, sampling, sequence):
                shown.add(sequence, token)
        seconds = time.perf_counter() - started
    streamed = shown.end()
    made = sum(map(len, shown.tokens))
    document: dict[str, Any] = {
        "schema": 1,
        "model": str(folder),
        "adapter": None if adapter is None else str(adapter),
        "kind": opened.kind,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_k": top_k,
        "seed": seed,
        "texts": [
            {"prompt_tokens": len(tokens), "tokens": shown.tokens[s], "text": shown.text(s)}
            for s, tokens in enumerate(prompts)
        ],
        "seconds": seconds,
        "tokens_per_second": made / seconds,
    }
    if json_only:
        print_json(document)
        return
    if not streamed:
        print_texts(prompt, document)
    speed = f"{made:,} tokens, {document['tokens_per_second']:,.1f} per second"
    print(speed, file=sys.stderr)


def print_texts(prompts: list[str], document: Mapping[str, Any]) -> None:
    """Every prompt and its continuation."""
    for prompt, text in zip(prompts, document["texts"], strict=True):
        print(f"{printable_text(prompt)} -> {printable_text(text['text'])}\n")
