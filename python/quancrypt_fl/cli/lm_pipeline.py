"""``quancrypt lm pipeline``: text from one model that is split by layers over processes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from quancrypt_fl.cli.errors import CommandError, CommandFailedError
from quancrypt_fl.cli.interrupts import interruptible_imports
from quancrypt_fl.cli.lm_streaming import Shown, printable_text
from quancrypt_fl.cli.lm_text_options import (
    MaxNewTokens,
    Model,
    Prompts,
    Seed,
    Temperature,
    TopK,
    require_language_models,
)
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import aligned, print_json, table

if TYPE_CHECKING:
    from quancrypt_fl.lm.pipeline_job import PipelineJob

__all__ = ["pipeline"]

_STAGES = 2


def pipeline(
    model: Model,
    prompt: Prompts,
    stages: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes to start on this machine.", show_default=f"{_STAGES}; torchrun's"
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 0.0,
    top_k: TopK = 0,
    seed: Seed = 1,
    activation_bits: Annotated[
        int, typer.Option(metavar="8|32", help="Of activations between stages; 32: not rounded.")
    ] = 32,
    check: Annotated[
        bool, typer.Option("--check", help="Compare the logits with those of one process.")
    ] = False,
    interface: Annotated[
        str | None,
        typer.Option(
            help="Network interface, for stages on several machines (torchrun).",
            show_default="loopback",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a stage waits for another one.")
    ] = 300.0,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, help="Threads of each stage.", show_default="CPUs / stages here"
        ),
    ] = None,
    json_only: JsonOnly = False,
) -> None:
    """Generate text with a model whose layers are split over several processes.

    Starts them on this machine; under torchrun, this process is one of them. Each holds the weights
    of its own layers alone. Activations travel between stages in clear, and reveal the prompts.
    """
    require_language_models()
    with interruptible_imports():
        from quancrypt_fl.deployment.lm_stages import PipelineError, run_local
        from quancrypt_fl.lm.codecs import codec_of
        from quancrypt_fl.lm.generation import Sampling
        from quancrypt_fl.lm.loading import load_config, model_folder
        from quancrypt_fl.lm.pipeline_job import PipelineJob
        from quancrypt_fl.lm.pipeline_launched import launched_as, run_launched
        from quancrypt_fl.lm.pipeline_lost import StageLostError
        from quancrypt_fl.lm.pipeline_stage import check_job
        from quancrypt_fl.machine import cpus

    place = launched_as()
    count = _stages(stages, place)
    if place is None and interface is not None:
        raise CommandError("--interface goes with torchrun: stages started here use loopback")
    if place is not None and check:
        raise CommandError("--check goes with stages that this command starts, not with torchrun")
    folder = model_folder(model)
    codec = codec_of(folder, load_config(folder))
    job = PipelineJob(
        folder=folder,
        prompts=tuple(tuple(codec.encode(text)) for text in prompt),
        sampling=Sampling(max_new_tokens, temperature, top_k, seed),
        activation_bits=activation_bits,
        timeout=timeout,
        threads=threads or (max(1, cpus() // count) if place is None else 1),
    )
    check_job(job, count)
    silent = json_only or (place is not None and place[0] > 0)
    shown = Shown(codec, len(prompt), silent=silent)
    with tempfile.TemporaryDirectory(prefix="quancrypt-logits-") as scratch:
        if check:
            job = replace(job, logits=Path(scratch))
        try:
            if place is None:
                figures = run_local(job, count, shown.add)
            else:
                found = run_launched(job, interface, shown.add)
                if found is None:
                    return
                figures = found
        except PipelineError as error:
            raise CommandFailedError(str(error)) from error
        except StageLostError as error:
            assert place is not None
            raise CommandFailedError(f"stage {place[0] + 1} of {count}: {error}") from error
        streamed = shown.end()
        document = _document(job, shown, figures)
        if check:
            from quancrypt_fl.lm.pipeline_check import compare

            document["check"] = compare(job, shown.tokens, Path(scratch))
    if json_only:
        print_json(document)
    else:
        _print(document, prompt if not streamed else ())


def _stages(wanted: int | None, place: tuple[int, int] | None) -> int:
    if place is None:
        return wanted or _STAGES
    if wanted not in (None, place[1]):
        raise CommandError(f"--stages {wanted}: torchrun has started {place[1]}; leave it out")
    return place[1]


def _document(job: PipelineJob, shown: Shown, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What was made and measured."""
    passed = sum(map(len, job.prompts)) + figures["decoded"]  # tokens that went through the stages
    stages = [
        {**stage, "bytes_per_token": stage["sent_bytes"] / passed} for stage in figures["stages"]
    ]
    decode = figures["seconds"]["decode"]
    return {
        "schema": 1,
        "model": str(job.folder),
        "activation_bits": job.activation_bits,
        "max_new_tokens": job.sampling.max_new_tokens,
        "temperature": job.sampling.temperature,
        "top_k": job.sampling.top_k,
        "seed": job.sampling.seed,
        "threads": job.threads,
        "texts": [
            {"prompt_tokens": len(prompt), "tokens": shown.tokens[s], "text": shown.text(s)}
            for s, prompt in enumerate(job.prompts)
        ],
        "stages": stages,
        "seconds": dict(figures["seconds"]),
        "tokens_per_second": figures["decoded"] / decode if figures["decoded"] else None,
        "bytes_per_token": sum(stage["bytes_per_token"] for stage in stages),
        "bytes_per_new_token_number": figures["token_bytes"],
    }


def _print(document: Mapping[str, Any], prompts: Sequence[str]) -> None:
    """The figures; texts too, unless they have been shown as they grew."""
    for prompt, text in zip(prompts, document["texts"], strict=False):
        print(f"{printable_text(prompt)} -> {printable_text(text['text'])}\n")
    rows = [
        [
            f"{stage['stage']}",
            "{} to {}".format(*stage["layers"]),
            decimal(stage["weight_bytes"]),
            decimal(stage["cache_bytes"]),
            decimal(stage["peak_rss_bytes"]),
            f"{stage['bytes_per_token']:,.0f}",
        ]
        for stage in document["stages"]
    ]
    print()
    print(table(["stage", "layers", "weights", "cache", "peak memory", "bytes/token sent"], rows))
    speed = document["tokens_per_second"]
    lines = [
        ("Speed", "one token was made" if speed is None else f"{speed:,.1f} tokens per second"),
        (
            "Sent",
            f"{document['bytes_per_token']:,.0f} bytes of activations per token, "
            f"{document['activation_bits']} bits, in clear",
        ),
    ]
    if check := document.get("check"):
        lines.append(
            (
                "Check",
                f"logits differ from one process by at most {check['largest_difference']:.1e} "
                f"(largest: {check['largest_logit']:.3g}); likeliest token the same for "
                f"{check['same_choice']:.1%} of {check['tokens']:,}",
            )
        )
    print()
    print(aligned(lines))
