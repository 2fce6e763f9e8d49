"""With this folder on PYTHONPATH, Python takes the module _core of build/sanitize.

`make test-sanitize` runs the Python tests so, subprocesses included: the editable install stays as
it is, and Python files are used where they stand.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "build" / "sanitize" / "cpp"


class SanitizedCore:
    """Finds ``quancrypt_native._core``, and nothing else."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "quancrypt_native._core":
            return None
        (module,) = FOLDER.glob("_core*.so")
        return importlib.util.spec_from_file_location(name, module)


sys.meta_path.insert(0, SanitizedCore)
