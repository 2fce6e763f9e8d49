"""``quancrypt`` as a whole, and ``quancrypt simulate``, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.fl.test_config import OTHER

from quancrypt_fl.cli.app import app, run
from quancrypt_fl.config import CHOICES, GROUPS, QuanCryptConfig
from quancrypt_fl.errors import FederatedError
from quancrypt_fl.method.roles import GlobalState

SMALL = ["simulate", "--clients", "2", "--rounds", "1", "--local-epochs", "1"]


COMMANDS = [
    "doctor",
    "plan",
    "simulate",
    "keygen",
    "encrypt",
    "aggregate",
    "decrypt",
    "inspect",
]


def test_help_lists_commands_in_the_order_of_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[1] for line in lines if re.match(r"│ [a-z]", line)]
    assert [command for command in listed if command in COMMANDS] == COMMANDS


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "simulate"])
def test_help_of_a_command_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"   quancrypt {command}" in shown.partition("Example:")[2]
    assert "--json" in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr() == (f"quancrypt-native {version('quancrypt-native')}\n", "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_defect_of_ours(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "quancrypt_fl", "doctor"],
            stdout=writing,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 141
    assert done.stderr == b""


def option_of(name: str) -> Any:
    """The option of ``quancrypt simulate`` for a parameter."""
    command = typer.main.get_command(app).commands["simulate"]  # type: ignore[attr-defined]
    (option,) = (parameter for parameter in command.params if parameter.name == name)
    return option


def test_help_names_every_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["simulate", "--help"]) == 0
    shown = capsys.readouterr().out
    for name, field in QuanCryptConfig.model_fields.items():
        assert re.search(rf"--{name.replace('_', '-')}\b", shown), name
        assert field.description
        assert field.description.split()[0] in shown
    for option in ("--json", "--resume", "--quiet", "--no-pruning", "--no-encryption"):
        assert option in shown
    for group in GROUPS:
        assert f"─ {group} ─" in shown
    for names in CHOICES.values():
        assert "|".join(names) in re.sub(r"\s*│\n│\s*", "", shown) or names[0] in shown


@pytest.mark.parametrize("name", list(QuanCryptConfig.model_fields))
def test_every_field_is_an_option_with_its_default(name: str) -> None:
    option = option_of(name)
    assert f"--{name.replace('_', '-')}" in option.opts
    assert option.default == QuanCryptConfig.model_fields[name].default


def test_options_reach_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from quancrypt_fl.engines import simulation

    seen: list[QuanCryptConfig] = []

    class StopError(FederatedError):
        pass

    def noting(config: QuanCryptConfig, **_: Any) -> None:
        seen.append(config)
        raise StopError("seen")

    monkeypatch.setattr(simulation, "Simulation", noting)
    # Some exclude others: each gets there in a command line of its own.
    for unset in (
        ("error_feedback", "threshold", "aggregation", "dp"),
        ("update", "method", "encryption", "aggregation", "dp"),
        ("update", "method", "threshold", "error_feedback", "clients", "participation"),
    ):
        values = {**OTHER, "out": str(tmp_path), "data_dir": str(tmp_path), "tensorboard": False}
        values = {name: value for name, value in values.items() if name not in unset}
        arguments = ["simulate"]
        for name, value in values.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                arguments.append(option if value else option.replace("--", "--no-", 1))
            else:
                arguments += [option, str(value)]
        assert run(arguments) == 2
        assert seen.pop() == QuanCryptConfig(**values)
    assert run(["simulate", "--out", str(tmp_path)]) == 2
    assert seen == [QuanCryptConfig(out=tmp_path)]


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys\n"
        "from quancrypt_fl.cli.app import run\n"
        "assert run(['simulate', '--help']) == 0\n"
        "loaded = {'torch', 'matplotlib', 'sklearn', 'phe', 'tenseal'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_is_only_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SMALL, "--json", "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema"] == 1
    assert captured.err == ""


def test_quiet_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run([*SMALL, "--quiet", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "")
    assert run([*SMALL, "--out", str(tmp_path), "--resume"]) == 0
    table = capsys.readouterr().out
    for text in ("Test accuracy", "128 bits", "CKKS", "summing side held none", "results.json"):
        assert text in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "--method", "fedsgd"], "method = 'fedsgd': not available; available: qu"),
        (["simulate", "--bits", "99"], "bits = 99: Input should be less than or equal to 16"),
        (["simulate", "--bits", "many"], "Invalid value for '--bits'"),
        (["simulate", "--t-eff", "300"], "t_eff = 300 must be below t_target = 300"),
        (["simulate", "--dataset", "mnist"], "needs --data-dir"),
        (["simulate", "--lr", "nan"], "lr = nan: Input should be a finite number"),
        (["simulate", "--lr", "inf"], "lr = inf: Input should be a finite number"),
        (["simulate", "--p-0", "nan"], "p_0 = nan: Input should be a finite number"),
        (["simulate", "--nonsense"], "No such option"),
        (["simulate", "--clients", "2000"], "use fewer clients or more data"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("quancrypt: ")
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_resume_without_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*SMALL, "--resume", "--out", str(tmp_path)]) == 2
    assert "no checkpoint to resume from" in capsys.readouterr().err


def test_resume_with_fewer_rounds_than_are_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*SMALL, "--quiet", "--out", str(tmp_path)]
    assert run([*options, "--rounds", "2"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert run([*options, "--resume"]) == 2
    assert "2 rounds are done already, --rounds is 1" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize("below", ["", "deep/er"])
def test_results_go_into_a_folder(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert run([*SMALL, "--out", str(file / below)]) == 2
    assert capsys.readouterr() == ("", f"quancrypt: {file}: is a file; --out names a folder\n")


@pytest.mark.parametrize("rounds", [0, 2])
def test_an_interrupted_run_says_how_to_go_on(
    rounds: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from quancrypt_fl.engines import federation

    whole = federation.federated_round

    def interrupted(state: GlobalState, *arguments: Any, **options: Any) -> GlobalState:
        if state.round == rounds:
            raise KeyboardInterrupt
        return whole(state, *arguments, **options)

    monkeypatch.setattr(federation, "federated_round", interrupted)
    command = [*SMALL, "--rounds", "3", "--out", str(tmp_path)]
    assert run(command) == 130
    expected = f"interrupted after round {rounds}; go on with --resume" if rounds else "interrupted"
    assert capsys.readouterr() == ("", f"quancrypt: {expected}\n")


def test_any_command_that_is_interrupted_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from quancrypt_fl.cli import plan as module

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "calibrate", interrupt)
    assert run(["plan", "--values", "9"]) == 130
    assert capsys.readouterr() == ("", "quancrypt: interrupted\n")


@pytest.mark.parametrize(
    "interrupt",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGINT)",  # while modules are imported
        "raise KeyboardInterrupt",
    ],
)
def test_an_interrupted_start_is_one_line(interrupt: str) -> None:
    code = (
        "import signal, sys\n"
        # What runs the tests may ignore SIGINT, which children inherit.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'quancrypt_fl.cli.app':\n"
        f"            {interrupt}\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['quancrypt', 'doctor']\n"
        "from quancrypt_fl.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "quancrypt: interrupted\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "quancrypt_fl", "simulate", "--rounds", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == ("quancrypt: rounds = 0: Input should be greater than or equal to 1\n")


@pytest.mark.parametrize("module", ["typer", "torch"])
def test_a_missing_extra_is_one_sentence(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "sys.argv = ['quancrypt', 'simulate']\n"
        "from quancrypt_fl.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == ("quancrypt needs the [fl] extra: pip install 'quancrypt-native[fl]'\n")


def test_a_missing_extra_in_python_names_it() -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom quancrypt_fl import Simulation"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "quancrypt_fl.Simulation needs 'torch': pip install" in done.stderr
