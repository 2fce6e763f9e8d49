"""What compiler and linker made: wide instructions stay in the files of the wide kernel sets.

Reads the build that ``make test-cpp`` leaves. An older CPU must be able to run everything but the
kernels that run-time dispatch keeps from it.
"""

import json
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from tests.packaging.conftest import ROOT

BUILD = ROOT / "build" / "tests"

pytestmark = [
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64"), reason="the wide sets are for x86-64"
    ),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump and nm of binutils"),
    pytest.mark.skipif(
        not (BUILD / "compile_commands.json").is_file(), reason="`make test-cpp` has not run"
    ),
]

# Beyond SSE2, by mnemonic. tzcnt is left out: compilers write it for bsf, as old CPUs read it.
SSE42 = re.compile(
    r"addsub|h(add|sub)p|lddqu|mov(d|sh|sl)dup|fisttp|pabs|palignr|ph(add|sub|min)|pmaddubsw"
    r"|pmulhrsw|pshufb|psign|blend|dpp[sd]|extractps|insertps|movntdqa|mpsadbw|packusdw|pblend"
    r"|pcmpeqq|pcmpgtq|pcmp[ei]str|pextr[bdq]|pinsr[bdq]|pm(ax|in)(s[bd]|u[dw])|pmov[sz]x"
    r"|pmul(dq|ld)|ptest|round[ps][sd]|crc32|popcnt"
)
NEWER = re.compile(
    r"v|k(mov|or|and|x|not|add|shift|test|unpck)|aes|pclmul|sha(1|256)|lzcnt|andn$|bextr|bls|bzhi"
    r"|mulx|pdep|pext$|rorx|sarx|shlx|shrx|adcx|adox|movbe|rdrand|rdseed|rdfsbase|wrfsbase|xgetbv"
)
SHA = re.compile(r"sha256(rnds2|msg[12])$")
AVX512 = re.compile(r"%zmm|%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]|\{")
WIDE_REGISTER = re.compile(r"%[yz]mm")

LINE = re.compile(
    r"^\s+[0-9a-f]+:\t(?:(?:rep|repz|repnz|lock|notrack|data16|bnd|cs|ds) )*(\S+) *(.*)$"
)
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")


def run(*command: str | Path) -> list[str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@cache
def instructions(binary: Path) -> list[tuple[str, str, str]]:
    """Function, mnemonic and operands of each instruction."""
    found = []
    function = ""
    for line in run("objdump", "-d", "-C", "-w", "--no-show-raw-insn", binary):
        if match := LINE.match(line):
            found.append((function, match[1], match[2]))
        elif match := FUNCTION.match(line):
            function = match[1]
    return found


@cache
def objects() -> dict[str, Path]:
    """Source, relative to cpp/, and object file of everything that the build compiles of ours."""
    commands = json.loads((BUILD / "compile_commands.json").read_text())
    found = {
        str(Path(entry["file"]).relative_to(ROOT / "cpp")): BUILD / entry["output"]
        for entry in commands
    }
    missing = [source for source, path in found.items() if not path.is_file()]
    assert missing == [], "the build in build/tests is not complete: run `make test-cpp`"
    return found


def set_of(source: str) -> str:
    """The instruction set that a source may use."""
    folders = Path(source).parts
    if folders[0] != "simd" or source.endswith(
        "/table.cpp"
    ):  # a table runs before the CPU is known
        return "base"
    return folders[1] if folders[1] in ("avx512", "avx2", "sha", "sse42") else "base"


def beyond(name: str, mnemonic: str, operands: str) -> bool:
    """The instruction is not of the set `name`."""
    if name == "avx512":
        return False
    if name == "avx2":
        return AVX512.search(operands) is not None
    if NEWER.match(mnemonic):
        return not (name == "sha" and SHA.match(mnemonic))
    return name == "base" and SSE42.match(mnemonic) is not None


def sources(*names: str) -> list[str]:
    return [source for source in objects() if set_of(source) in names]


@pytest.mark.parametrize(
    ("instruction", "sets"),
    [
        ("paddd %xmm0,%xmm1", "base sse42 sha avx2 avx512"),
        ("pshufb %xmm0,%xmm1", "sse42 sha avx2 avx512"),
        ("crc32q (%rdi),%rax", "sse42 sha avx2 avx512"),
        ("sha256rnds2 %xmm0,%xmm1,%xmm2", "sha avx2 avx512"),
        ("vpaddd %ymm0,%ymm1,%ymm2", "avx2 avx512"),
        ("vaddsd %xmm0,%xmm1,%xmm2", "avx2 avx512"),
        ("mulx %rax,%rbx,%rcx", "avx2 avx512"),
        ("vpaddd %ymm16,%ymm1,%ymm2", "avx512"),
        ("vpaddd %zmm0,%zmm1,%zmm2", "avx512"),
        ("kmovb %k1,%eax", "avx512"),
    ],
)
def test_instructions_are_told_apart(instruction: str, sets: str) -> None:
    mnemonic, operands = instruction.split(maxsplit=1)
    names = ("base", "sse42", "sha", "avx2", "avx512")
    assert [n for n in names if not beyond(n, mnemonic, operands)] == sets.split()


def test_the_build_has_every_set() -> None:
    assert {set_of(source) for source in objects()} == {"base", "sse42", "sha", "avx2", "avx512"}
    assert len(sources("base")) > 40
    for source in sources("avx2", "avx512"):
        assert any(WIDE_REGISTER.search(line[2]) for line in instructions(objects()[source]))
    assert any(
        line[1].startswith("crc32") for line in instructions(objects()["simd/sse42/crc32c.cpp"])
    )


def test_each_file_keeps_to_its_instruction_set() -> None:
    found = [
        (source, line)
        for source, path in objects().items()
        for line in instructions(path)
        if beyond(set_of(source), line[1], line[2])
    ]
    # Which registers the operating system saves is asked where CPUID says that it can be.
    assert {(source, line[1]) for source, line in found} == {("simd/cpu.cpp", "xgetbv")}


def test_wide_files_define_nothing_that_others_could_share() -> None:
    """A weak or COMDAT symbol of a wide file may become the copy that the linker keeps for all."""
    for source in sources("sse42", "sha", "avx2", "avx512"):
        symbols = [
            line.split(maxsplit=2) for line in run("nm", "-C", "--defined-only", objects()[source])
        ]
        namespace = f"quancrypt::simd::{set_of(source)}::"
        assert len(symbols) > 0
        for _, kind, name in symbols:
            assert kind not in "WwVvu", f"{source}: {name} is weak"
            assert kind.islower() or name.startswith(namespace), f"{source} exports {name}"


def test_linked_programs_are_wide_in_the_wide_sets_only() -> None:
    """By the symbols of the test that holds most: all layers and SEAL."""
    program = BUILD / "cpp" / "tests" / "test_seal"
    assert any(line[0].startswith("seal::") for line in instructions(program))
    ours = re.compile(r"quancrypt::simd::(avx2|avx512|sha|sse42|\(anonymous namespace\))::")
    wide = {line[0] for line in instructions(program) if beyond("base", line[1], line[2])}
    assert len(wide) > 20
    # cpu_features asks the operating system by xgetbv, as above.
    assert [n for n in wide if not ours.search(n) and "cpu_features" not in n] == []


def test_the_module_holds_no_other_wide_code() -> None:
    """It has no symbols: as many wide instructions as the wide files hold."""
    modules = list((BUILD / "cpp").glob("_core*.so"))
    if not modules:
        pytest.skip("the build has no module: pybind11 was not found")
    expected = sum(
        WIDE_REGISTER.search(line[2]) is not None
        for source in sources("avx2", "avx512")
        for line in instructions(objects()[source])
    )
    assert (
        sum(WIDE_REGISTER.search(line[2]) is not None for line in instructions(modules[0]))
        == expected
    )


def test_masks_of_avx512_reach_branches_where_declared() -> None:
    """Valgrind knows no AVX-512, and MemorySanitizer checks what another compiler makes of it.

    A vector's content reaches a branch or an address through a mask that is moved to a general
    register, a comparison that sets flags before a jump, or a gather. (Whole vectors moved to
    general registers are pointers that the compiler kept there.)
    """
    found = set()
    for source in sources("avx512"):
        lines = instructions(objects()[source])
        for (function, mnemonic, operands), following in zip(
            lines, lines[1:] + lines[:1], strict=True
        ):
            to_register = mnemonic.startswith("kmov") and re.search(r",%[er]\w+$", operands)
            to_flags = re.match(r"kortest|ktest|vu?comis|vptest$|vtestp", mnemonic)
            if re.match(r"vp?gather|vp?scatter", mnemonic):
                found.add(f"{function}: {mnemonic}")
            elif to_register or (to_flags and re.match(r"j|set|cmov", following[1])):
                name = re.sub(r"<.*|\(.*", "", function.replace("(anonymous namespace)::", ""))
                found.add(name.rpartition("::")[2])
    # What SECURITY.md lists: public numbers, the first NaN, a draw to be repeated (of a ternary
    # number, of a mask), a sum that is not valid, a coefficient of 2^62 and more.
    assert "sample_ternary" in found
    assert found <= {
        "add_bits", "add_bits_by", "find_not_below", "quantize_f32", "quantize_f64",
        "sample_ternary", "unpack", "unpack_fields", "round_to_integers",
    }  # fmt: skip
