"""Stages in processes of their own, over loopback: numbers, bytes, and what a death does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tests.fl.lm.serving.test_pipeline_split import parts
from transformers import AutoModelForCausalLM

from quancrypt_fl.cli.app import run
from quancrypt_fl.cli.lm_streaming import Shown
from quancrypt_fl.deployment import lm_stages
from quancrypt_fl.deployment.lm_stages import PipelineError, run_local
from quancrypt_fl.deployment.trees import descendants, is_running
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.generation import Sampling, generate
from quancrypt_fl.lm.loading import load_config
from quancrypt_fl.lm.pipeline_job import PipelineJob
from quancrypt_fl.lm.pipeline_launched import launched_as
from quancrypt_fl.lm.pipeline_lost import who_is_lost
from quancrypt_fl.lm.pipeline_stage import job_digest
from quancrypt_fl.lm.rounding import dequantize_rows, quantize_rows

DEADLINE = 120.0  # seconds; nothing here takes a quarter of it
HIDDEN = 24

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def pipeline(capsys: pytest.CaptureFixture[str], folder: Path, *options: str) -> dict[str, Any]:
    command = ["lm", "pipeline", "--model", str(folder), "--threads", "1", "--json", *options]
    assert run(command) == 0, capsys.readouterr().err
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_two_stages_of_two_texts(
    tiny_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """GPT-2, greedy: the tokens of one process, logits within 1e-5, bytes as computed."""
    folder = tiny_model("gpt2")
    prompts = ["Friends", "To be, or not"]
    given = [option for text in prompts for option in ("--prompt", text)]
    document = pipeline(capsys, folder, *given, "--max-new-tokens", "9", "--check")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for number, text in enumerate(prompts):
        expected = [t for t, _ in generate(model, list(text.encode()), Sampling(9), number)]
        assert document["texts"][number]["tokens"] == expected
    assert document["check"]["largest_difference"] <= 1e-5
    assert document["check"]["same_choice"] == 1
    assert document["check"]["tokens"] == sum(len(text["tokens"]) for text in document["texts"])
    first, last = document["stages"]
    assert (first["layers"], last["layers"]) == ([1, 3], [4, 5])
    assert (first["bytes_per_token"], last["bytes_per_token"]) == (4 * HIDDEN, 0)
    assert document["bytes_per_token"] == 4 * HIDDEN
    stored = load_file(folder / "model.safetensors")
    whole = sum(tensor.nbytes for tensor in stored.values())
    tied = stored["transformer.wte.weight"].nbytes
    assert first["weight_bytes"] + last["weight_bytes"] == whole + tied
    kept = sum(t["prompt_tokens"] + len(t["tokens"]) - 1 for t in document["texts"])
    assert first["cache_bytes"] == 3 * kept * 2 * HIDDEN * 4
    assert last["cache_bytes"] == 2 * kept * 2 * HIDDEN * 4
    assert document["tokens_per_second"] > 0
    assert min(stage["peak_rss_bytes"] for stage in document["stages"]) > 1 << 20


def test_three_stages_draw_as_one_process(
    tiny_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_model("llama")
    options = ("--stages", "3", "--temperature", "0.9", "--top-k", "40", "--seed", "11")
    document = pipeline(
        capsys, folder, "--prompt", "Hamlet", *options, "--max-new-tokens", "12", "--check"
    )
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    sampling = Sampling(12, 0.9, 40, 11)
    expected = [token for token, _ in generate(model, list(b"Hamlet"), sampling)]
    assert document["texts"][0]["tokens"] == expected
    assert document["check"]["largest_difference"] <= 1e-5
    assert [stage["layers"] for stage in document["stages"]] == [[1, 2], [3, 4], [5, 5]]
    assert document["bytes_per_token"] == 2 * 4 * HIDDEN


# --- deaths ---


def disturbed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, stages: int, act: Callable[[list[int]], None]
) -> tuple[int, list[int]]:
    """A pipeline that would go on for hours; once tokens come, ``act`` on its stages, in order.

    Returns the command's status and the processes of the stages, none of which is left.
    """
    flowing, add = threading.Event(), Shown.add

    def noted(self: Shown, sequence: int, token: int) -> None:
        add(self, sequence, token)
        if len(self.tokens[0]) == 3:
            flowing.set()

    monkeypatch.setattr(Shown, "add", noted)
    found: list[int] = []

    def watch() -> None:
        assert flowing.wait(DEADLINE)
        found.extend(workers())
        act(found)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    command = ["lm", "pipeline", "--model", str(folder), "--prompt", "On and on", "--threads", "1"]
    status = run([*command, "--max-new-tokens", "1000000", "--stages", str(stages)])
    watcher.join(DEADLINE)
    assert len(found) == stages
    assert [pid for pid in found if Path(f"/proc/{pid}").exists()] == []
    return status, found


def workers() -> list[int]:
    """Processes of this process's stages, in order."""
    found = {}
    for member in descendants(os.getpid()):
        line = Path(f"/proc/{member.pid}/cmdline").read_bytes().split(b"\0")
        if b"quancrypt_fl.lm.pipeline_worker" in line:
            found[int(line[-3])] = member.pid
    return [found[stage] for stage in sorted(found)]


def listening(pid: int) -> set[str]:
    """Addresses that a process listens on, in hexadecimal."""
    sockets = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets |= set(re.findall(r"socket:\[(\d+)\]", str(entry.readlink())))
        except OSError:  # closed meanwhile
            continue
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in sockets and fields[3] == "0A":
                found.add(fields[1].partition(":")[0])
    return found


@linux
def test_a_killed_stage_ends_all_and_is_named(
    tiny_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    addresses: set[str] = set()

    def kill(stages: list[int]) -> None:
        for pid in stages:
            addresses.update(listening(pid))
        os.kill(stages[1], signal.SIGKILL)

    status, stages = disturbed(monkeypatch, tiny_model("endless"), 3, kill)
    assert status == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"quancrypt: stage 2 of 3 (process {stages[1]}) ended by SIGKILL; "
        "all other stages were ended"
    )
    assert addresses == {socket.inet_aton("127.0.0.1")[::-1].hex().upper()}


@linux
def test_ctrl_c_ends_all_stages(
    tiny_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(stages: list[int]) -> None:
        del stages
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and & ignore it
    try:
        status, _ = disturbed(monkeypatch, tiny_model("endless"), 2, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert status == 130
    assert capsys.readouterr().err.splitlines()[-1] == "quancrypt: interrupted"


FAKE = """
import os, signal, sys, time
stage = int(sys.argv[2])
def tell(text):
    print("\\x1e" + text, flush=True)
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        pytest.param(
            "if stage == 1:\n time.sleep(1)\n os.kill(os.getpid(), signal.SIGKILL)\n"
            'tell(\'{"error": "stage 2 of 3 does not answer any more"}\'); sys.exit(3)',
            r"stage 2 of 3 \(process \d+\) ended by SIGKILL; all other stages were ended",
            id="the neighbours notice first",
        ),
        pytest.param(
            'if stage == 2:\n tell(\'{"error": "no such tensor"}\'); sys.exit(2)\ntime.sleep(1000)',
            "stage 3 of 3: no such tensor; all stages were ended",
            id="refused",
        ),
        pytest.param(
            "if stage == 0:\n print('noise'); raise MemoryError('too large')\ntime.sleep(1000)",
            r"stage 1 of 3 \(process \d+\) ended with status 1 \(MemoryError: too large\); all",
            id="a defect",
        ),
        pytest.param(
            'if stage != 0:\n time.sleep(1000)\ntell(\'{"error": "stage 2 hangs"}\'); sys.exit(3)',
            "stage 1 of 3: stage 2 hangs; all stages were ended",
            id="a stage hangs",
        ),
        pytest.param("", "stage 1 of 3", id="no result"),
    ],
)
def test_which_stage_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, expected: str
) -> None:
    (tmp_path / "fake_worker.py").write_text(FAKE + code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(lm_stages, "_WORKER", "fake_worker")
    monkeypatch.setattr(lm_stages, "_SETTLE", 3.0)
    with pytest.raises(PipelineError, match=expected):
        run_local(PipelineJob(tmp_path, ((1,),)), 3, lambda sequence, token: None)
    mine = {member.pid for member in descendants(os.getpid()) if is_running(member)}
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in mine]
    assert not any(b"fake_worker" in line for line in lines)


def test_all_that_a_stage_said_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what is still in the pipe when it has ended."""
    code = (
        "for token in range(5000 if stage == 0 else 0):\n"
        " tell('{\"token\": [0, %d]}' % token)\n"
        'if stage == 0:\n tell(\'{"result": {"a": 1}}\')\n'
    )
    (tmp_path / "fake_worker.py").write_text(FAKE + code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(lm_stages, "_WORKER", "fake_worker")
    tokens: list[int] = []
    result = run_local(PipelineJob(tmp_path, ((1,),)), 2, lambda _, token: tokens.append(token))
    assert result == {"a": 1}
    assert tokens == list(range(5000))


def test_who_is_lost_is_who_says_nothing() -> None:
    store = dist.HashStore()
    store.set_timeout(timedelta(seconds=1))
    error = RuntimeError("Connection closed by peer\nmore")
    assert who_is_lost(store, 0, 3, error, 0.1) == "stages 2 and 3 of 3 do not answer any more"
    assert who_is_lost(store, 2, 3, error, 0.1) == "stage 2 of 3 does not answer any more"
    said = who_is_lost(store, 1, 3, error, 0.1)
    assert said == "a connection between stages failed: Connection closed by peer"


# --- torchrun ---


def test_torchrun_starts_stages_that_talk_in_8_bits(tiny_model: Callable[[str], Path]) -> None:
    """The tokens of two stages in one process, with activations rounded between them."""
    folder = tiny_model("llama")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0",
        "-m", "quancrypt_fl", "lm", "pipeline", "--model", str(folder), "--prompt", "Hi", "--json",
        "--max-new-tokens", "8", "--activation-bits", "8",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    first, last = parts(folder, 2)
    caches = first.new_cache(), last.new_cache()
    fresh, expected = list(b"Hi"), []
    with torch.no_grad():
        for _ in range(8):
            activations = first(torch.tensor([fresh]), caches[0])
            received = dequantize_rows(*quantize_rows(activations), torch.float32)
            assert 0 < (received - activations).abs().max() < 0.01 * activations.abs().max()
            fresh = [int(last(received, caches[1])[0, -1].argmax())]
            expected += fresh
    assert document["texts"][0]["tokens"] == expected
    assert document["bytes_per_token"] == HIDDEN + 4  # a byte each, and a scale
    assert len(document["stages"]) == 2


def test_stages_of_different_jobs_are_told_apart(tiny_model: Callable[[str], Path]) -> None:
    config = load_config(tiny_model("llama"))
    job = PipelineJob(Path("here"), ((1, 2),), threads=3)
    digest = job_digest(job, config)
    assert job_digest(replace(job, folder=Path("there"), threads=1), config) == digest
    others = [
        job_digest(replace(job, prompts=((1, 3),)), config),
        job_digest(replace(job, sampling=Sampling(seed=2)), config),
        job_digest(replace(job, activation_bits=8), config),
        job_digest(job, load_config(tiny_model("mistral"))),
    ]
    assert len({digest, *others}) == 5


def test_several_machines_take_a_named_interface(
    tiny_model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    command = ["lm", "pipeline", "--model", str(tiny_model("gpt2")), "--prompt", "a"]
    command += ["--max-new-tokens", "5"]
    assert run(command) == 2
    assert "several machines, and activations, which reveal prompts" in capsys.readouterr().err
    assert run([*command, "--interface", "none"]) == 2
    assert "interface 'none' is not there; allowed: " in capsys.readouterr().err
    assert run([*command, "--stages", "3"]) == 2
    assert "torchrun has started 2" in capsys.readouterr().err
    assert run([*command, "--check"]) == 2
    assert "not with torchrun" in capsys.readouterr().err
    assert launched_as() == (0, 2)
    assert launched_as({}) is None
    with pytest.raises(ConfigError, match="not the numbers"):
        launched_as({"RANK": "x", "WORLD_SIZE": "2"})


# --- jobs ---


def test_a_job_travels_as_text() -> None:
    job = PipelineJob(
        Path("model"), ((1, 2), (3,)), Sampling(5, 0.5, 3, 9), 8, 20.0, 2, Path("out")
    )
    assert PipelineJob.from_json(job.to_json()) == job
    plain = PipelineJob(Path("model"), ((1,),))
    assert PipelineJob.from_json(plain.to_json()) == plain


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"prompts": ()}, "no prompt"),
        ({"activation_bits": 4}, "activation-bits = 4; allowed: 8, and 32"),
        ({"timeout": 0.0}, "timeout = 0; allowed"),
        ({"threads": 0}, "threads = 0; allowed"),
    ],
)
def test_impossible_jobs_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PipelineJob(**{"folder": Path("model"), "prompts": ((1,),), **choices})


def test_options_that_do_not_go_together(
    tiny_model: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["lm", "pipeline", "--model", str(tiny_model("gpt2")), "--prompt", "a"]
    assert run([*command, "--interface", "lo"]) == 2
    assert "--interface goes with torchrun" in capsys.readouterr().err
    assert run([*command, "--stages", "6"]) == 2
    assert "stages = 6: the model has 5 layers; allowed: 1 to 5" in capsys.readouterr().err
