"""What is declassified stands in one list, is used, and SECURITY.md says the same."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CPP = ROOT / "cpp"
LIST = CPP / "simd" / "constant_time.h"


def listed() -> set[str]:
    body = re.search(r"enum class Declassified \{(.*?)\};", LIST.read_text(), re.DOTALL)
    assert body
    lines = [line.strip() for line in body[1].strip().splitlines()]
    assert all(re.fullmatch(r"\w+, +///< .+", line) for line in lines), "each with its reason"
    return {line.partition(",")[0] for line in lines}


def test_what_is_declassified_is_what_is_listed() -> None:
    used: set[str] = set()
    for path in CPP.rglob("*.cpp"):
        used |= set(re.findall(r"QUANCRYPT_DECLASSIFY\(\s*(\w+)", path.read_text()))
    for path in CPP.rglob("*.h"):
        if path != LIST:
            used |= set(re.findall(r"QUANCRYPT_DECLASSIFY\(\s*(\w+)", path.read_text()))
    assert used == listed()


def test_nothing_is_declassified_without_a_reason() -> None:
    for path in [*CPP.rglob("*.h"), *CPP.rglob("*.cpp")]:
        if path != LIST and "tests" not in path.relative_to(CPP).parts:
            assert "QUANCRYPT_PUBLIC" not in path.read_text(), path


def test_the_security_page_lists_the_same() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    table = re.search(r"\| declassified \|.*?\n\|[ -|]+\|\n(.*?)\n\n", text, re.DOTALL)
    assert table
    assert {row.split("`")[1] for row in table[1].splitlines()} == listed()
