"""No code comes from a hub by the packages that language models need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

KERNELS = 'raise SystemExit("kernels were loaded")\n'


def run(folder: Path, code: str) -> str:
    (folder / "kernels.py").write_text(KERNELS)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_package_that_loads_kernels_from_a_hub_stays_out(tmp_path: Path) -> None:
    said = run(tmp_path, "import quancrypt_fl.lm.adapters, importlib.util as u; "
               "print(u.find_spec('kernels'))")  # fmt: skip
    assert said == "None\n"
    assert "kernels were loaded" in run(tmp_path, "import kernels")
