"""Distinguishers: at chance against sound encryption, winners against what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quancrypt_fl.cli.app import app
from quancrypt_fl.leakage.distinguisher.attacks import play, play_bytes, success
from quancrypt_fl.leakage.distinguisher.native_attacks import (
    NATIVE_GAMES,
    NOISE_HANDED_OVER,
    NOT_ENCRYPTED,
    ONE_SEED,
    PACKAGE,
    SEED_TWICE,
    play_native,
)
from quancrypt_fl.leakage.distinguisher.rlwe import (
    BROKEN,
    GUARD_BITS,
    SOUND,
    Encryptor,
    N,
    P,
    divide,
    from_slots,
    multiply,
    to_slots,
)

NOISE_OFF, TWICE, ONE_FOR_ALL, SLOTS = BROKEN
GAMES = 100
CHANCE = (0.27, 0.73)  # 100 fair games are outside of it once in 300,000 times


def test_products_are_those_of_the_negacyclic_ring() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, P, N), rng.integers(0, P, N)
    expected = [0] * N
    for i, x in enumerate(a.tolist()):
        for j, y in enumerate(b.tolist()):
            place, sign = (i + j) % N, -1 if i + j >= N else 1
            expected[place] = (expected[place] + sign * x * y) % P
    assert multiply(a, b).tolist() == expected
    assert divide(multiply(a, b), b).tolist() == a.tolist()


def test_slots_bring_coefficients_back() -> None:
    coefficients = np.random.default_rng(2).integers(0, P, N)
    assert from_slots(to_slots(coefficients)).tolist() == coefficients.tolist()


@pytest.mark.parametrize("setting", [SOUND, *BROKEN], ids=lambda setting: setting.name)
def test_every_setting_decrypts(setting: object) -> None:
    """With the key, a message comes back within the guard bits: settings differ in safety alone."""
    rng = np.random.default_rng(3)
    encryptor = Encryptor(setting, rng)  # type: ignore[arg-type]
    message = rng.integers(0, 255, N) << GUARD_BITS
    found = encryptor.encrypt(message)
    opened = (found.c0 + multiply(found.c1, encryptor._secret % P)) % P
    error = np.where(opened > P // 2, opened - P, opened) - message
    assert np.abs(error).max() <= (21 if setting is not NOISE_OFF else 0)
    assert (setting is NOISE_OFF) == (not error.any())
    assert np.array_equal(found.published, message) == (setting is not SLOTS)


@pytest.mark.parametrize("attack", ["key", "difference"])
def test_sound_encryption_leaves_them_guessing(attack: str) -> None:
    right = play(SOUND, attack, GAMES, np.random.default_rng(4))
    assert CHANCE[0] < right / GAMES < CHANCE[1]


def test_bytes_of_sound_ciphertexts_say_nothing() -> None:
    right = play_bytes(SOUND, GAMES, np.random.default_rng(5))
    assert CHANCE[0] < right / GAMES < CHANCE[1]


@pytest.mark.parametrize("attack", NATIVE_GAMES[PACKAGE])
def test_the_packages_uploads_leave_them_guessing(attack: str) -> None:
    right = play_native(PACKAGE, attack, GAMES, np.random.default_rng(6))
    assert CHANCE[0] < right / GAMES < CHANCE[1]


@pytest.mark.parametrize(
    ("setting", "attack"),
    [
        (NOISE_HANDED_OVER, "key"),
        (SEED_TWICE, "key"),
        (SEED_TWICE, "difference"),
        (ONE_SEED, "decoded"),
        (NOT_ENCRYPTED, "bytes"),
        (NOT_ENCRYPTED, "decoded"),
    ],
)
def test_broken_twins_of_the_package_are_told_apart_every_time(setting: str, attack: str) -> None:
    assert play_native(setting, attack, 20, np.random.default_rng(9)) == 20


@pytest.mark.parametrize(
    ("setting", "attack"),
    [(NOISE_HANDED_OVER, "difference"), (SEED_TWICE, "decoded"), (ONE_SEED, "bytes")],
)
def test_what_an_attack_cannot_see_in_a_twin(setting: str, attack: str) -> None:
    """Each is won by another attack: a twin is broken in one way, not in all."""
    right = play_native(setting, attack, GAMES, np.random.default_rng(10))
    assert CHANCE[0] < right / GAMES < CHANCE[1]


@pytest.mark.parametrize(
    ("setting", "attack"), [(NOISE_OFF, "key"), (TWICE, "difference"), (SLOTS, "key")]
)
def test_what_is_broken_is_told_apart_every_time(setting: object, attack: str) -> None:
    assert play(setting, attack, 20, np.random.default_rng(7)) == 20  # type: ignore[arg-type]


def test_a_classifier_wins_where_all_have_one_seed() -> None:
    assert play_bytes(ONE_FOR_ALL, GAMES, np.random.default_rng(8)) > 0.95 * GAMES


def test_a_classifier_cannot_see_a_seed_that_comes_twice() -> None:
    right = play_bytes(TWICE, GAMES, np.random.default_rng(8))
    assert CHANCE[0] < right / GAMES < CHANCE[1]


def test_seeds_are_used_as_often_as_the_setting_says() -> None:
    for setting, expected in ((SOUND, 6), (TWICE, 3), (ONE_FOR_ALL, 1)):
        encryptor = Encryptor(setting, np.random.default_rng(11))
        drawn = [encryptor.encrypt(np.zeros(N, dtype=np.int64)).c1.tobytes() for _ in range(6)]
        assert len(set(drawn)) == expected
        assert (drawn[0] == drawn[1]) == (setting is not SOUND)


def test_success_has_an_exact_interval() -> None:
    share, low, high = success(50, 100)
    assert share == 0.5
    assert 0.33 < low < 0.36
    assert 0.64 < high < 0.67
    assert success(100, 100)[1] > 0.9


def test_the_command_writes_every_game(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from quancrypt_fl.leakage.distinguisher import study

    monkeypatch.setattr(study, "_TRIALS", {"quick": 30})
    app(args=["attack", "distinguisher", "--json", "--out", str(tmp_path)], standalone_mode=False)
    printed = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "distinguisher.json").read_bytes()) == printed
    assert len(printed["games"]) == 29
    games = [(game["setting"], game["attack"]) for game in printed["games"]]
    assert len(set(games)) == 29
    broken = [check for check in printed["checks"] if check["text"].startswith("broken")]
    assert [check["passed"] for check in broken] == [True] * 9


def test_every_attack_on_the_package_must_win_against_a_twin_of_it() -> None:
    from quancrypt_fl.leakage.distinguisher.study import _MUST_WIN

    won = {attack for setting, attack in _MUST_WIN if setting.startswith(f"{PACKAGE}, ")}
    assert won == set(NATIVE_GAMES[PACKAGE])
    small = {attack for setting, attack in _MUST_WIN if not setting.startswith(PACKAGE)}
    assert small == {"key", "difference", "bytes"}
