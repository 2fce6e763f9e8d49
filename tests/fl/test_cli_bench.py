"""``quancrypt bench``: what it measures and prints, and that wrong answers are not timed."""

from __future__ import annotations

import importlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import quancrypt_native as qn
from quancrypt_fl.bench import machine, operations
from quancrypt_fl.bench import run as bench_run
from quancrypt_fl.bench.chart import draw_chart
from quancrypt_fl.bench.kernels import check_digests, ring_parameters
from quancrypt_fl.bench.ours import Ours
from quancrypt_fl.bench.rivals import Missing, missing_rivals
from quancrypt_fl.bench.run import QUICK, run_benchmarks
from quancrypt_fl.bench.stages import stages_of
from quancrypt_fl.bench.subject import WrongAnswerError
from quancrypt_fl.bench.tables import print_document
from quancrypt_fl.bench.timing import interleave
from quancrypt_fl.cli.app import run
from quancrypt_native import _core

TINY = replace(
    QUICK, values=20_000, repeat=1, sample_seconds=1e-5, threads_values=20_000, kernels=False
)
ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = {item.name for item in operations.COMPARISONS}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """One tiny run with everything in this process."""
    return run_benchmarks(replace(TINY, kernels=True))


def assert_spread(spread: dict[str, float]) -> None:
    assert 0 < spread["min"] <= spread["median"] <= spread["max"]


def printed(document: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_document(document, Console(file=stream, width=200))
    return stream.getvalue()


def test_quick_json_is_a_document_and_nothing_else(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    options = ["--values", "20000", "--repeat", "1", "--no-kernels"]
    files = ["--out", str(out), "--plot", str(plot)]
    assert run(["bench", "--quick", "--json", *options, *files]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert json.loads(out.read_text()) == shown
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert shown["schema"] == 1
    assert shown["config"]["values"] == 20_000
    assert {row["name"] for row in shown["operations"]} == OPERATIONS
    assert shown["machine"]["kernel_set"] == qn.backend()
    assert shown["machine"]["threads"] == 1
    assert "kernels" not in shown


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--out", "absent/x.json", "there is no folder"),
        ("--plot", "absent/x.png", "there is no folder"),
        ("--plot", "x.txt", "x.txt: --plot draws .png, .pdf, .svg"),
        ("--plot", "x", "x: --plot draws .png, .pdf, .svg"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_measuring(
    option: str,
    name: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(*_: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(bench_run, "run_benchmarks", measure)
    assert run(["bench", option, str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_help_keeps_square_brackets_and_tells_the_number_of_pairs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["bench", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "pip install 'quancrypt-native[baselines]'" in shown
    assert QUICK.repeat == 3
    assert "Three pairs of each" in shown


def test_every_row_has_times_and_ratios(document: dict[str, Any]) -> None:
    missing = {item.rival for item in missing_rivals()}
    for row in document["operations"]:
        assert_spread(row["ours"])
        wanted = [
            item.rival
            for item in operations.COMPARISONS
            if item.name == row["name"] and item.rival.partition("_")[0] not in missing
        ]
        assert [rival["rival"] for rival in row["rivals"]] == wanted
        for rival in row["rivals"]:
            assert_spread(rival["ratio"])
            assert_spread(rival["ns_per_value"])
            assert_spread(rival["ours"])
    assert_spread(document["threads"]["ratio"])


def test_bytes_per_value(document: dict[str, Any]) -> None:
    each = {row["subject"]: row["bytes_per_value"] for row in document["bytes"]}
    params = qn.Parameters.for_aggregation(bits=operations.BITS, max_weight=operations.MAX_WEIGHT)
    assert each["packed"] >= params.bytes_per_value
    # SEAL writes whole 64-bit words.
    words = 8 * params.poly_degree * len(params.data_primes) / params.values_per_ciphertext
    assert each["seal"] == pytest.approx(words, rel=0.01)
    for row in document["bytes"]:
        assert row["ratio"] == pytest.approx(row["bytes_per_value"] / each["packed"])


def test_kernels_and_stages(document: dict[str, Any]) -> None:
    sets = {*qn.backends()}
    for row in document["kernels"] + document["ntt"]:
        assert sets <= set(row["sets"])
        assert row["work"]["elements"] > 0
        for name in sets:
            assert_spread(row["sets"][name]["ns_per_element"])
            assert_spread(row["sets"][name]["speedup"])
        assert row["sets"]["portable"]["speedup"]["median"] == 1.0
    transforms = {(row["kernel"], row["degree"]) for row in document["ntt"]}
    assert {"slots_to_coefficients", "unpack_fields"} <= {r["kernel"] for r in document["kernels"]}
    assert transforms == {
        (kernel, 2**log_n) for kernel in ("ntt_forward", "ntt_inverse") for log_n in range(10, 16)
    }
    assert all("seal_ratio" in row["sets"][qn.backend()] for row in document["ntt"])
    for operation in document["stages"]["operations"].values():
        total = sum(row["ns_per_value"] for row in operation["stages"])
        assert operation["ns_per_value"] == pytest.approx(total)
        assert all(row["share"] > 0 for row in operation["stages"])
    json.dumps(document, allow_nan=False)


def test_table_and_chart(document: dict[str, Any], tmp_path: Path) -> None:
    text = printed(document)
    for row in document["operations"]:
        assert row["label"] in text
    assert document["machine"]["cpu"] in text
    assert f"SEAL {qn.seal.version()}" in text
    draw_chart(document, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 10_000


@pytest.mark.parametrize(("suffix", "magic"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_suffix_of_a_chart_is_its_format(
    document: dict[str, Any], tmp_path: Path, suffix: str, magic: bytes
) -> None:
    draw_chart(document, tmp_path / f"chart{suffix}")
    assert (tmp_path / f"chart{suffix}").read_bytes().startswith(magic)


def test_a_missing_rival_is_a_line_not_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = [Missing("tenseal", "tenseal"), Missing("paillier", "phe")]
    monkeypatch.setattr(bench_run, "missing_rivals", lambda: missing)
    document = run_benchmarks(TINY)
    assert {row["name"] for row in document["operations"]} == OPERATIONS
    rivals = {rival["rival"] for row in document["operations"] for rival in row["rivals"]}
    assert rivals
    assert all(rival.startswith("seal") for rival in rivals)
    text = printed(document)
    for item in missing:
        assert str(item) in text
        assert "pip install 'quancrypt-native[baselines]'" in str(item)
    draw_chart(document, tmp_path / "chart.png")


@pytest.mark.skipif(len(qn.backends()) < 2, reason="this machine runs one kernel set")
def test_other_kernel_sets_run_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [name for name in qn.backends() if name != qn.backend()][:1]
    monkeypatch.setattr(qn, "backends", lambda: [qn.backend(), *others])
    document = run_benchmarks(replace(TINY, backends=True))
    assert set(document["backends"]) == set(others)
    for rows in document["backends"].values():
        assert [row["name"] for row in rows] == [row["name"] for row in document["operations"]]
    assert others[0] in printed(document)


def test_number_of_threads_is_restored() -> None:
    before = qn.num_threads()
    try:
        qn.set_num_threads(3)
        operations.threads(1000, 1, seed=1)
        assert qn.num_threads() == 3
    finally:
        qn.set_num_threads(before)


@pytest.mark.parametrize("offset", [0, 4, 8, 63])
@pytest.mark.parametrize(
    "params",
    [
        pytest.param(lambda: qn.Parameters.for_aggregation(), id="packed-8192"),
        pytest.param(lambda: qn.Parameters.for_aggregation(max_poly_degree=4096), id="packed-4096"),
        pytest.param(lambda: ring_parameters(1024), id="1024"),
        pytest.param(lambda: qn.Parameters.slots(), id="60-bit-primes"),
    ],
)
def test_kernels_of_all_sets_agree(params: Callable[[], qn.Parameters], offset: int) -> None:
    core = params()._core
    benches = {
        name: _core.KernelBench(core, name, offset=offset, seed=offset + 1)
        for name in qn.backends()
    }
    kernels = benches["portable"].kernels()
    assert {"ntt_forward", "chacha20", "crc32c"} <= set(kernels)
    check_digests(benches, kernels)
    # Operands decide the digest, and running a kernel does not change where it starts from.
    other = _core.KernelBench(core, "portable", offset=offset, seed=99)
    for kernel in kernels:
        before = benches["portable"].digest(kernel)
        assert benches["portable"].run(kernel, 2) > 0
        assert benches["portable"].digest(kernel) == before
        assert other.digest(kernel) != before


def test_every_kernel_of_the_table_is_measured() -> None:
    header = (ROOT / "cpp" / "simd" / "kernels.h").read_text()
    in_table = set(re.findall(r"^  [\w:]+ \(\*(\w+)\)\(", header, flags=re.MULTILINE))
    assert "ntt_forward" in in_table
    measured = {
        kernel
        for params in (qn.Parameters.for_aggregation(), qn.Parameters.slots())
        for kernel in _core.KernelBench(params._core, "portable").kernels()
    }
    # Rounding is an argument of one kernel; memcpy is the yardstick.
    assert measured - {"memcpy", "quantize_f32_stochastic"} == in_table


def test_a_differing_kernel_is_named() -> None:
    core = ring_parameters(1024)._core
    benches = {
        "portable": _core.KernelBench(core, "portable", seed=1),
        "broken": _core.KernelBench(core, "portable", seed=2),
    }
    with pytest.raises(WrongAnswerError, match="kernel add of set broken"):
        check_digests(benches, ["add"])


def test_a_wrong_sum_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Ours("packed", qn.Parameters.for_aggregation(), 100)
    subject.check(np.random.default_rng(1))
    assert subject.upload_bytes > 0
    monkeypatch.setattr(qn, "quantize", lambda x, clip, bits: np.zeros(x.shape, np.int16))
    with pytest.raises(WrongAnswerError, match="decrypted sum"):
        subject.check(np.random.default_rng(1))


def test_hooks_name_what_is_allowed() -> None:
    core = ring_parameters(1024)._core
    bench = _core.KernelBench(core, "portable")
    with pytest.raises(qn.ParameterError, match=r"'sort'.*ntt_forward"):
        bench.run("sort", 1)
    # Slots have no fields to pack.
    with pytest.raises(qn.ParameterError, match="'pack_fields'"):
        bench.work("pack_fields")
    with pytest.raises(qn.ParameterError, match="offset is 64; allowed: 0 to 63"):
        _core.KernelBench(core, "portable", offset=64)
    with pytest.raises(qn.ParameterError, match="prime is 7; allowed: 0 to 0"):
        _core.KernelBench(core, "portable", prime=7)
    with pytest.raises(qn.ParameterError, match=r"'mmx'.*portable"):
        _core.KernelBench(core, "mmx")
    seal = _core.SealBench(core)
    with pytest.raises(qn.ParameterError, match=r"'sort'.*encrypt_public"):
        seal.run("sort", 1)
    assert seal.run("ntt_forward", 1) > 0
    assert seal.bytes("ntt_forward") == 2 * 8 * 1024


def test_every_stage_is_a_kernel() -> None:
    params = qn.Parameters.for_aggregation()
    kernels = set(_core.KernelBench(params._core, "portable").kernels())
    for stages in stages_of(params).values():
        assert {stage.kernel for stage in stages} <= kernels
        assert all(stage.runs > 0 for stage in stages)


def test_samples_are_taken_in_turn() -> None:
    order: list[str] = []

    def sampler(name: str, value: float) -> Callable[[], float]:
        def sample() -> float:
            order.append(name)
            return value

        return sample

    pair = interleave(sampler("ours", 2.0), sampler("rival", 6.0), 3)
    assert order == ["ours", "rival"] * 4  # the first of each warms up
    assert pair.ratio.as_dict() == {"median": 3.0, "min": 3.0, "max": 3.0}


def test_commit_is_that_of_the_own_checkout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machine.describe_machine()
    assert facts["commit"] is None or len(facts["commit"]) == 40
    # Installed into an environment that lies in somebody else's repository.
    monkeypatch.setattr(machine, "_THIS_FILE", Path("elsewhere.py"))
    assert machine.describe_machine()["commit"] is None


# --- benchmarks/report.py, which writes docs/performance.md ---


@pytest.fixture(scope="module")
def report() -> Iterator[Any]:
    """The script, imported as it runs: with its folder on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("report")


def marked(*names: str) -> str:
    return "before\n" + "".join(f"<!-- bench:{n} -->\nold\n<!-- /bench -->\n" for n in names)


def test_report_fills_tables_from_a_run(
    report: Any, document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, page = tmp_path / "bench.json", tmp_path / "page.md"
    figures.write_text(json.dumps(document))
    filled = ["machine", "operations", "bytes", "kernels", "ntt", "rates", "limits"]
    page.write_text(marked(*filled, "memory"))
    report.main([str(page), "--", str(figures)])
    text = page.read_text()
    for name in filled:
        table = text.partition(f"<!-- bench:{name} -->\n")[2].partition("<!-- /bench -->")[0]
        assert table not in ("", "old\n"), name
        widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
        assert name == "limits" or len(widths) <= 1, name
    # A run of `quancrypt bench` says nothing about memory.
    assert text.endswith(marked("memory").partition("\n")[2])
    assert "table memory stays as it is" in capsys.readouterr().err
    # Running it again changes nothing.
    report.main([str(page), "--", str(figures)])
    assert page.read_text() == text


def test_report_knows_every_table_of_the_documents(report: Any) -> None:
    documents = [ROOT / "README.md", ROOT / "docs" / "performance.md"]
    named = {m[2] for path in documents for m in report.MARKER.finditer(path.read_text())}
    assert named == set(report.TABLES)


def test_report_refuses_other_files(report: Any, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 1, "rounds": []}')
    with pytest.raises(SystemExit, match="no document of quancrypt bench"):
        report.main(["--", str(tmp_path / "results.json")])
    with pytest.raises(SystemExit, match="usage"):
        report.main(["page.md"])
    with pytest.raises(SystemExit, match="unknown table 'speed'"):
        report.fill(marked("speed"), report.Figures(), [])
