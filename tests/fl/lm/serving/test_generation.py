"""Tokens one after another: which are chosen, when a text ends, and what is printed of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tests.fl.lm import tiny
from transformers import AutoModelForCausalLM, PreTrainedModel

from quancrypt_fl.cli.app import run
from quancrypt_fl.cli.lm_streaming import printable_text
from quancrypt_fl.errors import ConfigError
from quancrypt_fl.lm.codecs import Pieces, codec_of
from quancrypt_fl.lm.generation import Chooser, Sampling, check_lengths, end_tokens, generate
from quancrypt_fl.lm.loading import load_config

PROMPT = [70, 114, 105, 115]


@pytest.fixture(scope="module")
def llama(tiny_model: Callable[[str], Path]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model("llama")).eval()


def tokens_of(model: PreTrainedModel, sampling: Sampling, sequence: int = 0) -> list[int]:
    return [token for token, _ in generate(model, PROMPT, sampling, sequence)]


def test_greedy_tokens_are_those_of_transformers(llama: PreTrainedModel) -> None:
    ids = torch.tensor([PROMPT])
    expected = llama.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False
    )
    found = tokens_of(llama, Sampling(20))
    assert found == expected[0, len(PROMPT) :].tolist()
    assert len(set(found)) > 3


def test_logits_are_those_of_one_pass(llama: PreTrainedModel) -> None:
    """What the cache gives token by token is what a pass over the whole text gives."""
    steps = list(generate(llama, PROMPT, Sampling(12, temperature=1.5, seed=3)))
    text = torch.tensor([[*PROMPT, *(token for token, _ in steps[:-1])]])
    with torch.no_grad():
        expected = llama(input_ids=text, use_cache=False).logits[0, len(PROMPT) - 1 :]
    assert (torch.stack([logits for _, logits in steps]) - expected).abs().max() <= 1e-5


def test_draws_repeat_by_seed_and_differ_by_sequence(llama: PreTrainedModel) -> None:
    sampling = Sampling(20, temperature=1.0, top_k=50, seed=5)
    torch.manual_seed(0)
    first = tokens_of(llama, sampling)
    torch.manual_seed(1)  # torch's own state does not matter
    assert tokens_of(llama, sampling) == first
    assert tokens_of(llama, sampling, sequence=1) != first
    assert tokens_of(llama, Sampling(20, temperature=1.0, top_k=50, seed=6)) != first


def test_top_k_and_temperature_bound_the_draws() -> None:
    logits = torch.linspace(0, 3, 20)
    drawn = [Chooser(Sampling(1, 1.0, 4, seed)).choose(logits) for seed in range(200)]
    assert set(drawn) == {16, 17, 18, 19}
    cold = [Chooser(Sampling(1, 0.01, 0, seed)).choose(logits) for seed in range(50)]
    assert set(cold) == {19}
    chooser = Chooser(Sampling(1, 1.0, 0, 1))
    counts = torch.bincount(torch.tensor([chooser.choose(logits) for _ in range(4000)]))
    assert (counts / 4000 - logits.softmax(0)).abs().max() < 0.03


def test_a_text_ends_with_its_end_token(llama: PreTrainedModel) -> None:
    found = tokens_of(llama, Sampling(20))
    third = found[2]
    ended = [t for t, _ in generate(llama, PROMPT, Sampling(20), ends=frozenset({third}))]
    assert ended == found[: found.index(third) + 1]
    assert end_tokens(llama.config) == {257}
    llama.config.eos_token_id = [257, 3]
    assert end_tokens(llama.config) == {257, 3}
    llama.config.eos_token_id = 257


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max-new-tokens = 0; allowed: 1 or more"),
        ({"temperature": -1.0}, "temperature = -1; allowed"),
        ({"temperature": float("nan")}, "temperature = nan; allowed"),
        ({"top_k": -2, "temperature": 1.0}, "top-k = -2; allowed"),
        ({"top_k": 5}, "top-k goes with a temperature above 0"),
        ({"seed": -1}, "seed = -1; allowed"),
    ],
)
def test_impossible_choices_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sampling(**options)  # type: ignore[arg-type]


def test_texts_beyond_the_context_are_refused(llama: PreTrainedModel) -> None:
    check_lengths(llama.config, [[1] * 60], 4)
    with pytest.raises(ConfigError, match=r"prompt 2: 60 \+ 5 tokens, .* allowed: 64 together"):
        check_lengths(llama.config, [[1], [1] * 60], 5)
    with pytest.raises(ConfigError, match="prompt 2 has no tokens"):
        check_lengths(llama.config, [[1], []], 5)


def test_bytes_become_text_when_characters_are_whole(tiny_model: Callable[[str], Path]) -> None:
    folder = tiny_model("llama")
    codec = codec_of(folder, load_config(folder))
    text = "Grüße: 你好, привет\nand on 🙂 it goes."
    pieces: list[str] = []
    shown = Pieces(codec, pieces.append)
    for token in codec.encode(text):
        shown.add(token)
    shown.end()
    assert "".join(pieces) == text
    assert len(pieces) > 10
    assert "\ufffd" not in "".join(pieces)
    assert codec.decode([258, 65, 257]) == "A"  # no bytes


def test_what_a_model_writes_commands_no_terminal() -> None:
    assert printable_text("a\x1b[2Jb\r\nc\rd") == "a\\x1b[2Jb\nc\\rd"


def test_the_command_streams_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.gpt2(tmp_path / "gpt2")
    command = ["lm", "generate", "--model", str(folder), "--max-new-tokens", "12"]
    assert run([*command, "--prompt", "ab c", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (text,) = document["texts"]
    assert text["prompt_tokens"] == 4
    assert len(text["tokens"]) == 12
    assert document["tokens_per_second"] > 0
    assert run([*command, "--prompt", "ab c"]) == 0
    shown = capsys.readouterr()
    assert shown.out == printable_text(text["text"]) + "\n"
    assert "12 tokens" in shown.err
    assert run([*command, "--prompt", "ab c", "--prompt", "d"]) == 0
    assert "ab c -> " in capsys.readouterr().out
    assert run([*command, "--prompt", ""]) == 2
    assert "prompt 1 has no tokens" in capsys.readouterr().err


def test_seeds_differ_between_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny.gpt2(tmp_path / "gpt2")
    texts = []
    for seed in ("1", "1", "2"):
        options = ["--temperature", "1", "--top-k", "30", "--max-new-tokens", "20", "--json"]
        command = ["lm", "generate", "--model", str(folder), "--prompt", "ab", "--seed", seed]
        assert run([*command, *options]) == 0
        texts.append(json.loads(capsys.readouterr().out)["texts"][0]["tokens"])
    assert [one == two for one, two in pairwise(texts)] == [True, False]
