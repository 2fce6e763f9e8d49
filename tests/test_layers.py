"""The layers point one way: by #include lines, by CMake's link lists and by Python's imports."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import quancrypt_native as qn

ROOT = Path(__file__).resolve().parents[1]
CPP = ROOT / "cpp"
NATIVE = ROOT / "src" / "quancrypt_native"
FL = ROOT / "python" / "quancrypt_fl"

# --- C++ ---

LAYERS: dict[str, set[str]] = {
    "base": set(),
    "simd": {"base"},
    "ring": {"base", "simd"},
    "packing": {"base", "simd", "ring"},
    "wire": {"base", "simd", "ring"},
    "rlwe": {"base", "simd", "ring", "packing", "wire"},
    "multiparty": {"base", "simd", "ring", "packing", "wire", "rlwe"},
    "seal_bridge": {"base", "simd", "ring", "packing", "wire", "rlwe"},
    "bench": {"base", "simd", "ring", "packing", "wire", "rlwe", "multiparty", "seal_bridge"},
}
"""What each layer may use. ``bindings`` and ``tests`` stand above all of them."""

TOP = ("bindings", "tests")
SEAL_USERS = ("seal_bridge", "bench", "tests")
KERNEL_SETS = ("portable", "sse42", "sha", "avx2", "avx512")
WIDE_SETS = KERNEL_SETS[1:]
INTRINSICS = {"immintrin.h", "nmmintrin.h", "arm_neon.h"}


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".h", ".cpp"))


def includes(path: Path) -> tuple[set[str], set[str]]:
    """What stands in quotes, and what stands in angle brackets."""
    lines = re.findall(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', path.read_text(), re.MULTILINE)
    assert len(lines) == len(re.findall(r"^\s*#\s*include\b", path.read_text(), re.MULTILINE))
    quoted = {name for mark, name in lines if mark == '"'}
    return quoted, {name for mark, name in lines if mark == "<"}


def layer_of(path: Path) -> str:
    return path.relative_to(CPP).parts[0]


def test_every_folder_is_a_known_layer() -> None:
    folders = {path.name for path in CPP.iterdir() if path.is_dir()}
    assert folders <= {*LAYERS, *TOP}
    assert {"base", "simd", "ring", "packing", "rlwe", "wire", "seal_bridge", "bindings"} <= folders
    assert len(sources(CPP)) > 50


@pytest.mark.parametrize("path", sources(CPP), ids=lambda p: str(p.relative_to(CPP)))
def test_includes_point_down(path: Path) -> None:
    layer = layer_of(path)
    allowed = LAYERS[layer] | {layer} if layer in LAYERS else {*LAYERS, *TOP}
    quoted, system = includes(path)
    for name in quoted:
        folder, _, rest = name.partition("/")
        if folder == "seal":
            assert layer in SEAL_USERS, f"{layer} includes {name}"
        elif not rest:  # a header beside the file
            assert (path.parent / name).is_file()
            assert layer == "tests"
        else:
            assert (CPP / name).is_file(), f"{name} does not exist"
            assert folder in allowed, f"{layer} includes {name}"
    python = {name for name in system if name.startswith("pybind11/") or name == "Python.h"}
    assert not python or layer == "bindings"


def link_lists() -> dict[str, tuple[set[str], set[str]]]:
    """Sources and dependencies of each ``quancrypt_layer(...)`` in CMake."""
    text = re.sub(r"#.*", "", (CPP / "CMakeLists.txt").read_text())
    variables = {
        name: set(values.split()) for name, values in re.findall(r"\bset\((\w+)\s+([^)]*)\)", text)
    }
    found = {}
    for name, body in re.findall(r"\bquancrypt_layer\((\w+)\s+([^)]*)\)", text):
        listed, _, depends = body.partition("DEPENDS")
        assert depends
        files = set()
        pending = listed.replace("SOURCES", "").split()
        while pending:
            item = pending.pop()
            if match := re.fullmatch(r"\$\{(\w+)\}", item):
                pending += variables[match[1]]
            else:
                files.add(item)
        found[name] = files, set(depends.split())
    return found


def test_link_lists_point_down() -> None:
    """What a layer links is what it may use, and reaches all of it that it includes."""
    lists = link_lists()
    assert set(lists) == {path.name for path in CPP.iterdir() if path.is_dir()} - set(TOP)

    def reached(layer: str) -> set[str]:
        direct = {d.removeprefix("quancrypt_") for d in lists[layer][1] if "::" not in d}
        return direct.union(*(reached(below) for below in direct))

    for layer, (_, depends) in lists.items():
        assert reached(layer) <= LAYERS[layer]
        assert "SEAL::seal" not in depends or layer in SEAL_USERS
        used = {
            name.partition("/")[0] for path in sources(CPP / layer) for name in includes(path)[0]
        }
        assert used - {layer, "seal"} <= reached(layer)


def test_every_source_is_built_in_its_layer() -> None:
    for layer, (files, _) in link_lists().items():
        present = {str(p.relative_to(CPP)) for p in sources(CPP / layer) if p.suffix == ".cpp"}
        assert files == present
    text = (CPP / "CMakeLists.txt").read_text()
    module = re.search(r"pybind11_add_module\(_core MODULE\s+([^)]*)\)", text)
    assert module
    assert set(module[1].split()) == {
        f"bindings/{path.name}" for path in (CPP / "bindings").glob("*.cpp")
    }


def test_bindings_are_a_map() -> None:
    """Bindings convert and translate; the module's file stays a page."""
    assert len((CPP / "bindings" / "module.cpp").read_text().splitlines()) <= 50


def kernel_files(*names: str) -> list[Path]:
    return [path for name in names for path in sources(CPP / "simd" / name)]


@pytest.mark.parametrize(
    "path", kernel_files(*KERNEL_SETS), ids=lambda p: str(p.relative_to(CPP / "simd"))
)
def test_kernels_take_raw_pointers(path: Path) -> None:
    """Files of a kernel set know fixed-width integers, intrinsics and the table; nothing else."""
    quoted, system = includes(path)
    assert all(name.startswith("simd/") for name in quoted)
    standard = {"cstdint", "cstddef"}
    if path.parent.name == "portable":  # for the base instruction set: nothing can leak
        assert system <= standard | {"array", "bit", "cmath", "cstring"}
    else:
        assert system <= standard | INTRINSICS


def outside_anonymous_namespaces(text: str) -> str:
    """C++ text without comments and without what stands in ``namespace { ... }``."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    while match := re.search(r"\bnamespace\s*\{", text):
        depth, at = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        text = text[: match.start()] + text[at:]
    return text


def wide_headers() -> list[str]:
    """Headers that files of the wide sets include, directly or not."""
    found: set[str] = set()
    pending = kernel_files(*WIDE_SETS)
    while pending:
        new = includes(pending.pop())[0] - found
        found |= new
        pending += [CPP / name for name in new]
    return sorted(found)


@pytest.mark.parametrize("name", wide_headers())
def test_no_inline_function_leaves_a_wide_file(name: str) -> None:
    """A function that a wide file instantiates must not become the copy that all files share."""
    text = outside_anonymous_namespaces((CPP / name).read_text())
    assert not re.search(r"\binline\b(?! constexpr)", text)
    assert not re.search(r"\btemplate\b", text)
    assert not re.search(r"\)\s*(const|noexcept|\s)*\{", text)


def test_only_kernel_sets_are_compiled_for_wide_instructions() -> None:
    """-m options stand beside files of the wide sets alone; never for a whole target."""
    text = (CPP / "CMakeLists.txt").read_text()
    variables = dict(re.findall(r"\bset\((\w+)\s+([^)]*)\)", text))
    flagged = set()
    for files, options in re.findall(
        r"set_source_files_properties\(([^\s)]+) PROPERTIES COMPILE_OPTIONS\s+\"([^\"]*)\"", text
    ):
        assert re.search(r"-m\w", options)
        name = files.strip("${}")
        flagged |= set(variables.get(name, files).split())
    wide = {str(p.relative_to(CPP)) for p in kernel_files(*WIDE_SETS) if p.suffix == ".cpp"}
    # A table only lists functions: code outside of it would run before the CPU is known.
    assert flagged == {name for name in wide if not name.endswith("/table.cpp")}
    rest = re.sub(r"set_source_files_properties\([^)]*\)", "", text)
    assert not re.search(r"[\"; ]-m(avx|sse|arch|fma|bmi)", rest)


# --- Python ---


def imports(path: Path, package: str) -> Iterator[tuple[str, bool]]:
    """Absolute module names that a file imports, and whether at module level."""
    tree = ast.parse(path.read_text())
    deferred = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_load = id(node) not in deferred
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports are absolute"
            assert node.module
            yield node.module, at_load
            if node.module == package:
                yield from ((f"{package}.{alias.name}", at_load) for alias in node.names)


def modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


@pytest.mark.parametrize("path", modules(NATIVE), ids=lambda p: p.name)
def test_the_native_package_needs_numpy_only(path: Path) -> None:
    for name, at_load in imports(path, "quancrypt_native"):
        top = name.partition(".")[0]
        if top == "cryptography":
            assert path.name == "sealing.py"
            assert not at_load
        else:
            assert top in sys.stdlib_module_names | {"numpy", "quancrypt_native"}, name


def test_importing_the_native_package_loads_numpy_only() -> None:
    code = (
        "import sys, numpy, numpy.ma, numpy.random; before = set(sys.modules); "
        "import quancrypt_native; "
        "print(*sorted({m.partition('.')[0] for m in set(sys.modules) - before}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    others = set(done.stdout.split()) - sys.stdlib_module_names
    # Names with an underscore: the finder of an editable install.
    assert {name for name in others if not name.startswith("_")} <= {"numpy", "quancrypt_native"}


def test_the_native_package_has_no_circle() -> None:
    """Modules that load each other would be one module in two files."""
    graph = {}
    for path in modules(NATIVE):
        if path.name != "__init__.py":
            graph[path.stem] = {
                name.split(".")[1]
                for name, at_load in imports(path, "quancrypt_native")
                if at_load and name.startswith("quancrypt_native.")
            } - {"_core"}
    done: set[str] = set()
    while ready := [name for name, needs in graph.items() if name not in done and needs <= done]:
        done |= set(ready)
    # Only the self-test stands above the package and uses it as a whole.
    assert set(graph) - done <= {"selftest"} | {
        name for name, needs in graph.items() if "quancrypt_native" in needs
    }


DOORS = (
    "protect.py", "joint/ceremony.py", "joint/channel.py", "joint/protector.py",
    "envelopes/signer.py",
)  # fmt: skip
"""The modules of the federated side that use the native package."""

TOOLS = ("cli", "bench")
"""Commands on files and measurements work on the native package itself; no training runs there."""


@pytest.mark.parametrize("path", modules(FL), ids=lambda p: str(p.relative_to(FL)))
def test_training_reaches_encryption_through_one_door(path: Path) -> None:
    place = path.relative_to(FL)
    names = {name for name, _ in imports(path, "quancrypt_native")}
    native = {name for name in names if name.partition(".")[0] == "quancrypt_native"}
    if place.parts[0] in TOOLS:
        # What is private is for benchmarks of the kernels alone.
        assert place.parts[0] == "bench" or "quancrypt_native._core" not in native
    elif str(place) not in DOORS and place.parts[0] != "flower":
        assert native == set()
    else:
        assert not any(name.startswith("quancrypt_native._") for name in native)


def fl_path(name: str) -> Path | None:
    parts = name.split(".")[1:]
    for candidate in (FL.joinpath(*parts).with_suffix(".py"), FL.joinpath(*parts, "__init__.py")):
        if candidate.is_file():
            return candidate
    return None


ORDER = (
    "errors", "atomic_files", "seeds", "machine", "audit", "claims", "receipts", "plots",
    "envelopes",
    "method", "data", "models",
    "federation_config", "config", "observer", "checkpoint", "protect", "joint", "baselines",
    "private",
    "training", "results",
    "engines", "lm", "flower", "deployment", "export", "report", "watching",
    "tensorboard", "bench", "experiments", "leakage",
    "cli",
)  # fmt: skip
"""Files and folders of the federated side: each uses only what stands before it."""


def test_the_federated_side_points_one_way() -> None:
    places = {path.relative_to(FL).parts[0].removesuffix(".py") for path in modules(FL)}
    assert places - {"__init__", "__main__"} == set(ORDER)
    for path in modules(FL):
        place = path.relative_to(FL).parts[0].removesuffix(".py")
        if place in ORDER:
            allowed = set(ORDER[: ORDER.index(place) + 1])
            for name, _ in imports(path, "quancrypt_fl"):
                if name.startswith("quancrypt_fl."):
                    assert name.split(".")[1] in allowed, f"{path.relative_to(FL)}: {name}"


@pytest.mark.parametrize("path", modules(FL / "method"), ids=lambda p: p.name)
def test_the_method_knows_no_framework(path: Path) -> None:
    """Neither torch nor Flower nor encryption, nor anything of ours that knows them."""
    pending, seen = [path], set()
    while pending:
        file = pending.pop()
        seen.add(file)
        for name, _ in imports(file, "quancrypt_fl"):
            top = name.partition(".")[0]
            assert top not in ("torch", "flwr", "quancrypt_native"), f"{file.name}: {name}"
            if top == "quancrypt_fl" and name != "quancrypt_fl":
                found = fl_path(name)
                if found and found not in seen:
                    pending.append(found)


@pytest.mark.parametrize("path", modules(FL), ids=lambda p: str(p.relative_to(FL)))
def test_flower_stays_in_its_files(path: Path) -> None:
    place = str(path.relative_to(FL))
    if any(name.partition(".")[0] == "flwr" for name, _ in imports(path, "quancrypt_fl")):
        assert "flower" in place or place.startswith("cli/")


def test_the_server_side_imports_nothing_that_opens() -> None:
    """From the strategy on, no module of the clients' side is reached: keys, states, snapshots."""
    pending, seen = [FL / "flower" / "strategy.py"], set()
    while pending:
        file = pending.pop()
        seen.add(file)
        for name, _ in imports(file, "quancrypt_fl.flower"):
            found = fl_path(name) if name.startswith("quancrypt_fl.") else None
            if found and found not in seen:
                pending.append(found)
    reached = {path.stem for path in seen if path.parent.name == "flower"}
    assert {"strategy", "training_run", "server_round", "ledger", "history"} <= reached
    assert not reached & {"client", "mod", "stores", "context_store", "held", "snapshot", "final"}
    assert not reached & {"client_keys", "parties"}
    joint = {path.stem for path in seen if path.parent.name == "joint"}
    assert {"facts", "opened"} <= joint
    assert not joint & {"protector", "channel"}
    envelopes = {path.stem for path in seen if path.parent.name == "envelopes"}
    assert "gate" in envelopes
    assert "signer" not in envelopes


# --- names ---

CONTRACT = {
    "Aggregator", "CapacityError", "Decryptor", "EncryptedUpdate", "Encryptor", "KeyMismatchError",
    "ParameterError", "Parameters", "PassphraseError", "PublicKey", "QuanCryptError", "SecretKey",
    "WireFormatError", "aggregate", "backend", "cpu_features", "dequantize", "keygen",
    "mean_clip_bound", "quantize", "seal", "set_num_threads",
}  # fmt: skip
ADDED = {
    "DecryptionError", "Explanation", "FingerprintError", "KeyPair", "Layout",
    "SecretKeyPickleError", "SecretMemory", "TensorSpec", "__version__", "backends", "num_threads",
    "quantize_update", "secret_memory",
}  # fmt: skip
MEMBERS = {
    "Parameters": (
        "for_aggregation", "slots", "poly_degree", "coeff_modulus", "values_per_ciphertext",
        "bytes_per_value", "encoding", "to_bytes", "from_bytes", "explain",
    ),
    "Encryptor": ("encrypt", "encrypt_integers"),
    "Decryptor": ("decrypt_mean", "decrypt_sum", "decrypt_integers"),
    "Aggregator": ("add", "result"),
    "EncryptedUpdate": ("weight", "nbytes", "to_bytes", "from_bytes"),
    "SecretKey": ("to_bytes", "from_bytes"),
    "PublicKey": ("to_bytes", "from_bytes"),
    "seal": (
        "export_parameters", "export_secret_key", "export_ciphertexts", "import_ciphertexts",
    ),
}  # fmt: skip


def test_exported_names_are_pinned() -> None:
    """A new name is a decision: it is added here, to the contract or beside it."""
    assert set(qn.__all__) == CONTRACT | ADDED
    assert len(set(qn.__all__)) == len(qn.__all__)
    assert all(hasattr(qn, name) for name in qn.__all__)
    assert {name for name in vars(qn) if not name.startswith("_")} - set(qn.__all__) <= {
        *(module.name for module in pkgutil.iter_modules(qn.__path__)),
        "PackageNotFoundError",
        "version",
    }


@pytest.mark.parametrize("owner", sorted(MEMBERS))
def test_members_of_the_contract(owner: str) -> None:
    assert [n for n in MEMBERS[owner] if not hasattr(getattr(qn, owner), n)] == []


def test_signatures_of_the_contract() -> None:
    """The arguments that the contract's examples use, by their names and defaults."""
    for function, names in (
        (qn.Parameters.for_aggregation, {"bits", "max_weight", "security", "key_mode"}),
        (qn.Parameters.slots, {"poly_degree", "coeff_modulus_bits", "scale_bits"}),
        (qn.Encryptor.encrypt, {"x", "clip", "rounding", "rng"}),
        (qn.aggregate, {"updates", "weights"}),
        (qn.Aggregator.add, {"update", "weight"}),
        (qn.SecretKey.to_bytes, {"passphrase"}),
        (qn.SecretKey.from_bytes, {"data", "params", "passphrase"}),
        (qn.seal.import_ciphertexts, {"blobs", "params", "like", "weight"}),
        (qn.mean_clip_bound, {"x", "factor"}),
        (qn.quantize, {"x", "clip", "bits"}),
        (qn.dequantize, {"q", "clip", "bits"}),
    ):
        assert names <= set(inspect.signature(function).parameters)
    assert inspect.signature(qn.mean_clip_bound).parameters["factor"].default == 3.0


def public_things() -> Iterator[tuple[str, object]]:
    """Public modules, classes, functions and methods that the package defines."""
    for info in pkgutil.iter_modules(qn.__path__):
        if info.name.startswith("_"):
            continue
        module = importlib.import_module(f"quancrypt_native.{info.name}")
        yield info.name, module
        for name, thing in vars(module).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(thing) or inspect.isfunction(thing):
                yield f"{info.name}.{name}", thing
            if inspect.isclass(thing):
                for member, value in vars(thing).items():
                    inner = getattr(value, "__func__", getattr(value, "fget", value))
                    if not member.startswith("_") and inspect.isfunction(inner):
                        yield f"{info.name}.{name}.{member}", inner


def test_everything_public_has_a_docstring() -> None:
    things = dict(public_things())
    assert len(things) > 90
    assert [name for name, thing in things.items() if not inspect.getdoc(thing)] == []


def test_files_stay_short() -> None:
    """Aim for 80 to 250 lines; over 600 a file says why in its header."""
    for path in [*sources(CPP), *modules(NATIVE), *modules(FL)]:
        lines = path.read_text().splitlines()
        assert len(lines) <= 600 or any("600" in line for line in lines[:30]), path
