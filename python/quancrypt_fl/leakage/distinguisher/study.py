"""The distinguisher study: every attack on every setting, and on the package's own ciphertexts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quancrypt_fl.experiments.cells import Cell, MeasuringCell
from quancrypt_fl.experiments.experiment import Plan
from quancrypt_fl.experiments.summary import check
from quancrypt_fl.leakage.distinguisher.attacks import (
    GAMES,
    play,
    play_bytes,
    success,
)
from quancrypt_fl.leakage.distinguisher.native_attacks import (
    NATIVE_GAMES,
    NOISE_HANDED_OVER,
    NOT_ENCRYPTED,
    ONE_SEED,
    PACKAGE,
    SEED_TWICE,
    play_native,
)
from quancrypt_fl.leakage.distinguisher.rlwe import BROKEN, SOUND
from quancrypt_fl.seeds import generator

__all__ = ["DistinguisherStudy"]

_SETTINGS = {setting.name: setting for setting in (SOUND, *BROKEN)}
_TRIALS = {"quick": 200, "standard": 1000, "paper": 5000}
_WINS = 0.95  # share of right answers in a broken setting

_MUST_WIN = frozenset(
    {
        ("noise off", "key"),
        ("seed used twice", "difference"),
        ("one seed for all", "bytes"),
        ("slots decrypted with noise", "key"),
        (NOISE_HANDED_OVER, "key"),
        (SEED_TWICE, "difference"),
        (ONE_SEED, "decoded"),
        (NOT_ENCRYPTED, "bytes"),
        (NOT_ENCRYPTED, "decoded"),
    }
)
"""Broken settings and attacks that they fall to: one at least for every attack on what is sound."""

_GAMES = (
    *((setting, attack) for setting in _SETTINGS for attack in GAMES),
    *((setting, attack) for setting, attacks in NATIVE_GAMES.items() for attack in attacks),
)


@dataclass(frozen=True, kw_only=True)
class DistinguisherStudy:
    """Which of two chosen updates is in a ciphertext? An experiment for the runner."""

    name = "distinguisher"
    command = "attack distinguisher"
    title = "Two messages, one ciphertext"
    question = "Can it be told which of two chosen updates was encrypted?"

    def datasets(self, scale: str) -> tuple[str, ...]:
        """None: messages are chosen."""
        del scale
        return ()

    def cells(self, plan: Plan) -> list[Cell]:
        """One for each setting and attack."""
        (seed,) = plan.seeds
        return [
            MeasuringCell(
                f"{setting}-{attack}".replace(",", "").replace(" ", "-"),
                setting,
                measure_distinguisher,
                {
                    "setting": setting,
                    "attack": attack,
                    "trials": _TRIALS[plan.scale],
                    "seed": seed,
                },
                seed=seed,
            )
            for setting, attack in _GAMES
        ]

    def config(self, plan: Plan) -> dict[str, Any]:
        """What was chosen, for the document."""
        return {"scale": plan.scale, "trials": _TRIALS[plan.scale]}

    def summarize(self, plan: Plan, documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """A row for each finished cell."""
        del plan
        games = [{**d["parameters"], **d["results"]} for d in documents.values()]
        rows = [
            [
                game["setting"],
                game["attack"],
                str(game["trials"]),
                f"{game['success']:.3f}",
                f"{game['interval'][0]:.3f} to {game['interval'][1]:.3f}",
            ]
            for game in games
        ]
        head = ["setting", "attack", "games", "right answers", "99.9 % interval"]
        table = {"title": "Games won:", "head": head, "rows": rows, "left": 2}
        return {
            "kind": "leakage",
            "rows": games,
            "games": games,
            "tables": [table] if games else [],
            "checks": [line for game in games if (line := _check(game)) is not None],
            "notes": list(_NOTES),
            "figure": [],
        }


_NOTES = (
    "Settings are those of a small RLWE encryption in NumPy whose safeguards can be switched off; "
    "quancrypt-native is the native package's own uploads, and after its comma stands what was "
    "broken in them, with the key that the experiment holds.",
    "key: solves for the secret key with a published decryption. difference: subtracts a known "
    "ciphertext. bytes: a logistic regression on all bytes and their frequencies. decoded: the "
    "same on what an attacker without the key unpacks from c0.",
    "The small encryption writes coefficients, the package values at roots of unity, which spread "
    "each coefficient's noise over all of them. So bytes sees one seed for all in the former "
    "alone, and decoded, which goes back to coefficients, in the latter too. A seed used twice "
    "shows in no upload by itself, and neither sees it.",
    "What is at chance in a broken setting shows what that attack cannot see; nothing is required "
    "of it.",
    "No lattice reduction is tried: security against it rests on the parameters.",
)


def measure_distinguisher(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Play one attack on one setting: share of right answers, and its interval."""
    setting, attack = str(parameters["setting"]), str(parameters["attack"])
    trials = int(parameters["trials"])
    rng = generator(int(parameters["seed"]), f"distinguisher-{setting}-{attack}")
    if setting in NATIVE_GAMES:
        right = play_native(setting, attack, trials, rng)
    elif attack == "bytes":
        right = play_bytes(_SETTINGS[setting], trials, rng)
    else:
        right = play(_SETTINGS[setting], attack, trials, rng)
    share, low, high = success(right, trials)
    return {"success": share, "interval": [low, high]}


def _check(game: Mapping[str, Any]) -> dict[str, Any] | None:
    """Chance on what is sound; a win of the right attack on what is broken."""
    low, high = game["interval"]
    said = f"{game['success']:.3f} ({low:.3f} to {high:.3f})"
    basis = f"{game['setting']}, {game['attack']}, {game['trials']} games"
    if game["setting"] in (SOUND.name, PACKAGE):
        text = "sound encryption: no better than guessing"
        return check(text, "1/2 within the 99.9 % interval", said, low <= 0.5 <= high, basis)
    if (game["setting"], game["attack"]) in _MUST_WIN:
        text = f"broken on purpose, {game['setting']}: the attack wins"
        return check(text, f">= {_WINS}", said, game["success"] >= _WINS, basis)
    return None
