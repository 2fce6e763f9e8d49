"""``quancrypt doctor``: what is installed, what it runs on, and whether it computes rightly."""

from __future__ import annotations

import os
import platform
import re
from typing import Any

import quancrypt_native as qn
from quancrypt_fl.cli.options import JsonOnly
from quancrypt_fl.cli.text import aligned, print_json
from quancrypt_fl.machine import DISTRIBUTION, cpu_model, cpus, extra_with, installed
from quancrypt_native import selftest

__all__ = ["doctor"]

FAILED = 1

_OPTIONAL = {
    "cryptography": "key files with a passphrase",
    "torch": "training: quancrypt simulate",
    "scikit-learn": "the digits data set",
    "scipy": "statistics of quancrypt experiment",
    "matplotlib": "plots",
    "jinja2": "quancrypt report",
    "pillow": "HAM10000's JPEG files",
    "safetensors": "model files",
    "transformers": "language models: quancrypt lm",
    "peft": "adapters of language models: quancrypt lm",
    "flwr": "deployment on Flower",
    "tenseal": "simulate --method tenseal, comparison with TenSEAL",
    "phe": "simulate --method batchcrypt, comparison with Paillier",
    "gmpy2": "Paillier's fast integers",
    "dp-accounting": "simulate --method dp-gaussian and dp-laplace, simulate --dp",
    "opendp": "simulate --dp discrete-gaussian",
    "tensorboard": "simulate --tensorboard",
    "seal-python": "cross-checks against Microsoft SEAL 4.4",
}
_TRUSTED_ONLY = (4, 4, 0)  # SEAL's reading of streams was hardened up to this version


def doctor(json_only: JsonOnly = False) -> int:
    """Check this installation: versions, CPU, kernels, self-test.

    The exit status is 1 if the self-test fails.

    Example:

      quancrypt doctor
    """
    report = _report()
    if json_only:
        print_json(report)
    else:
        _print(report)
    return 0 if report["selftest"]["passed"] else FAILED


def _report() -> dict[str, Any]:
    checks = [
        {"name": name, "passed": passed, "reason": reason}
        for name, passed, reason in selftest.run()
    ]
    return {
        "versions": {
            DISTRIBUTION: qn.__version__,
            "python": platform.python_version(),
            "numpy": installed("numpy"),
        },
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": {"model": cpu_model(), "cpus": cpus(), "features": list(qn.cpu_features())},
        "kernels": {
            "in_use": qn.backend(),
            "available": list(qn.backends()),
            "forced": _variable("QUANCRYPT_BACKEND"),
        },
        "threads": {"in_use": qn.num_threads(), "forced": _variable("QUANCRYPT_NUM_THREADS")},
        "memory": _memory_of_keys(),
        "seal": {"version": qn.seal.version(), "streams": _streams(qn.seal.version())},
        "optional": [
            {
                "package": package,
                "version": installed(package),
                "purpose": purpose,
                "install": _install_command(package),
            }
            for package, purpose in _OPTIONAL.items()
        ],
        "selftest": {"passed": all(check["passed"] for check in checks), "checks": checks},
    }


def _variable(name: str) -> str | None:
    """The environment's value, None if it decides nothing."""
    return os.environ.get(name) or None


def _memory_of_keys() -> dict[str, Any]:
    """What the system does for the memory of a key, of the default parameters."""
    before = qn.secret_memory()
    keys = qn.keygen(qn.Parameters.for_aggregation())
    now = qn.secret_memory()
    del keys
    return {
        "key_bytes": now.key_bytes - before.key_bytes,
        "locked": now.keys_locked,
        "left_out_of_dumps": now.left_out_of_dumps,
        "lock_limit": now.lock_limit,
        "core_dumps": now.core_dumps,
    }


def _memory_text(memory: dict[str, Any]) -> str:
    size = f"{memory['key_bytes'] / 2**20:.1f} MiB"
    limit = memory["lock_limit"]
    allowed = "any number of bytes" if limit is None else f"{limit / 2**20:.2f} MiB"
    locked = (
        f"locked ({allowed} allowed)"
        if memory["locked"]
        else f"NOT LOCKED: the system locks {allowed}; raise it with ulimit -l, LimitMEMLOCK= or "
        "docker run --ulimit memlock=-1"
    )
    dumps = "left out of core dumps" if memory["left_out_of_dumps"] else "PART OF CORE DUMPS"
    return f"a key of {size}: {locked}; {dumps}"


def _streams(version: str) -> str:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers < _TRUSTED_ONLY:
        return (
            "trusted only: SEAL before 4.4.0 must not read a stranger's streams; "
            "files and messages of quancrypt do not go through it"
        )
    return "read by a SEAL that was hardened (4.4.0); files of quancrypt do not go through it"


def _install_command(package: str) -> str:
    extra = extra_with(package)
    return f"pip install '{DISTRIBUTION}[{extra}]'" if extra else f"pip install {package}"


def _print(report: dict[str, Any]) -> None:
    cpu, kernels, threads = report["cpu"], report["kernels"], report["threads"]
    forced = kernels["forced"]
    choice = f"forced by QUANCRYPT_BACKEND={forced}" if forced else "chosen by the CPU"
    source = "set by QUANCRYPT_NUM_THREADS" if threads["forced"] else "all CPUs of this process"
    rows: list[tuple[str, object]] = [
        *((name, version) for name, version in report["versions"].items()),
        ("system", report["system"]),
        ("CPU", f"{cpu['model']}, {cpu['cpus']} usable"),
        ("CPU features", " ".join(cpu["features"]) or "none beyond the base set"),
        ("kernels", f"{kernels['in_use']}, {choice}; here: {', '.join(kernels['available'])}"),
        ("threads", f"{threads['in_use']}, {source}"),
        ("memory of keys", _memory_text(report["memory"])),
        ("Microsoft SEAL", report["seal"]["version"]),
        ("SEAL streams", report["seal"]["streams"]),
    ]
    print(aligned(rows))
    print("\nOptional parts")
    print(
        aligned(
            [
                (
                    f"  {part['package']}",
                    part["version"] or f"missing ({part['purpose']}): {part['install']}",
                )
                for part in report["optional"]
            ]
        )
    )
    print("\nSelf-test")
    for check in report["selftest"]["checks"]:
        reason = f": {check['reason']}" if check["reason"] else ""
        print(f"  {'ok  ' if check['passed'] else 'FAIL'}  {check['name']}{reason}")
