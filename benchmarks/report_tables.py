"""The tables of docs/performance.md and README.md, by name: :data:`TABLES`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from report_figures import Figures, NotMeasuredError, duration, power, size, table

import quancrypt_native as qn
from quancrypt_fl.bench.operations import MAX_WEIGHT
from quancrypt_fl.bench.tables import machine_line, nanoseconds, times

BILLION = 10**9
PIECE = 16 * 10**6  # values of a piece of a stream, as in test_scaling.py


def machine(figures: Figures) -> str:
    """CPU, kernel set, commit and versions of each file."""
    if not figures.machines:
        raise NotMeasuredError("machine")
    lines = []
    for line in dict.fromkeys(machine_line(item) for item in figures.machines):
        lines.append(f"- {line}\n")
    first = figures.machines[0]
    versions = ", ".join(f"{k} {v}" for k, v in first["versions"].items() if v is not None)
    lines.append(f"- {first['cpus']} CPUs, {first['system']}, {versions}\n")
    return "".join(lines)


def readme(figures: Figures) -> str:
    """Ours beside TenSEAL in four lines."""
    rows = []
    for name, label in (
        ("encrypt", "encrypt and serialize, ns per value"),
        ("parse_add", "parse and add, ns per value"),
        ("decrypt", "decrypt a sum, ns per value"),
    ):
        row = figures.operation(name)
        rival = next((r for r in row["rivals"] if r["rival"] == "tenseal"), None)
        if rival is None:
            raise NotMeasuredError("tenseal")
        ours, theirs = rival["ours"]["median"], rival["ns_per_value"]["median"]
        rows.append(
            [label, nanoseconds(ours), nanoseconds(theirs), times(rival["ratio"]["median"])]
        )
    sizes = {row["subject"]: row["bytes_per_value"] for row in figures.part("bytes")}
    ratio = times(sizes["tenseal"] / sizes["packed"])
    rows.append(["bytes per value, uploaded", f"{sizes['packed']:.2f}",
                 f"{sizes['tenseal']:.1f}", ratio])  # fmt: skip
    note = f"\nOne thread; {machine_line(figures.part('machine'))}.\n"
    return table(["operation", "QuanCrypt", "TenSEAL", "ratio"], rows) + note


def targets(figures: Figures) -> str:
    """What was asked for, and what was measured with each kernel set."""
    main = figures.part("machine")["kernel_set"]
    others = list(figures.bench.get("backends", {}))

    def ratios(name: str, rival: str, does: str) -> list[str]:
        cells = [times(figures.ratio(name, rival, does))]
        return cells + [times(figures.ratio(name, rival, does, other)) for other in others]

    def same(text: str) -> list[str]:
        return [text, *["" for _ in others]]

    rows = [
        ["encrypt → upload, against TenSEAL's encryption and serialization", "350 x", "600 x",
         *ratios("encrypt", "tenseal", "+ serialize")],
        ["the same, against TenSEAL's encryption alone", "350 x", "600 x",
         *ratios("encrypt", "tenseal", "encryption alone")],
        ["decrypt a sum → float32, against TenSEAL", "150 x", "250 x",
         *ratios("decrypt", "tenseal", "→ list")],
        ["parse and add an upload, against TenSEAL's load and add", "150 x", "400 x",
         *ratios("parse_add", "tenseal", "load, add")],
    ]  # fmt: skip
    each = next(r["bytes_per_value"] for r in figures.part("bytes") if r["subject"] == "packed")
    rows.append(["bytes per value uploaded", "1.75", "1.6", *same(f"{each:.3f}")])
    for name, label in (("symmetric", "N = 8192"), ("symmetric_4096", "N = 4096")):
        rows.append(
            [f"symmetric encryption against SEAL's, {label}", "8 x (AVX2 4 x)", "15 x",
             *ratios(name, name.replace("symmetric", "seal").replace("_4096", "_small"),
                     "of a ready plaintext")]
        )  # fmt: skip
    ntt = next(r["sets"] for r in figures.part("ntt")
               if r["kernel"] == "ntt_forward" and r["degree"] == 4096)  # fmt: skip
    micro = ntt[main]["ns_per_element"]["median"] * 4096 / 1000
    rows.append(
        ["forward NTT, N = 4096, against SEAL's", "6 x", "8 x",
         f"{times(ntt[main]['seal_ratio']['median'])} ({micro:.1f} µs)",
         *(times(ntt[name]["seal_ratio"]["median"]) for name in others)]
    )  # fmt: skip
    threads = figures.part("threads")
    two = f"{threads['ratio']['median']:.2f} x (with the time of {threads['cpus']:.2f} CPUs)"
    rows.append([f"two threads against one, {threads['values'] / 1e6:.0f} M values", "1.8 x",
                 "1.95 x", *same(two)])  # fmt: skip
    rows.append(["slots, N = 8192: encode and encrypt, against SEAL", "3 x", "5 x",
                 *ratios("slots", "seal_slots", "not serialized")])  # fmt: skip
    try:
        peaks = {row["case"]: row for row in figures.kind("memory") if "peak" in row}
        share = peaks["encrypt"]["peak"] / peaks["encrypt"]["output"]
        rows.append(["peak extra memory while encrypting 11 M values, in outputs", "1.5",
                     "constant in a stream", *same(f"{share:.2f}")])  # fmt: skip
        adding = next(row for row in figures.kind("memory") if row["case"] == "aggregate")
        growth = adding["many"]["peak"] / adding["few"]["peak"]
        rows.append(["memory of an `Aggregator`, 1,000 clients against 2, a million values each",
                     "constant", "", *same(f"{growth:.2f} x")])  # fmt: skip
    except NotMeasuredError:
        pass
    return table(["operation", "must", "aim", main, *others], rows)


def operations(figures: Figures) -> str:
    """Every comparison, with the ratio's extremes."""
    others: dict[str, Any] = figures.bench.get("backends", {})
    rows = []
    for number, row in enumerate(figures.part("operations")):
        for place, rival in enumerate(row["rivals"]):
            ratio = rival["ratio"]
            rows.append(
                [
                    row["label"] if place == 0 else "",
                    nanoseconds(rival["ours"]["median"]),
                    f"{rival['label']} {rival['does']}".strip(),
                    nanoseconds(rival["ns_per_value"]["median"]),
                    f"**{times(ratio['median'])}**",
                    f"{nanoseconds(ratio['min'])} – {nanoseconds(ratio['max'])}",
                    *(
                        times(o[number]["rivals"][place]["ratio"]["median"])
                        for o in others.values()
                    ),
                ]
            )
    head = ["operation", "ours, ns", "beside", "theirs, ns", "ratio", "min – max"]
    return table([*head, *(f"ratio, {name}" for name in others)], rows)


def sizes(figures: Figures) -> str:
    """Bytes per value of an upload."""
    kinds = {"packed": "QuanCrypt, secret key", "public": "QuanCrypt, public key"}
    rows = [
        [kinds.get(r["subject"], r["label"]), f"{r['bytes_per_value']:.2f}", times(r["ratio"])]
        for r in figures.part("bytes")
    ]
    return table(["upload", "bytes per value", "times ours"], rows)


def kernels(figures: Figures) -> str:
    """All kernels at the default parameters: every set, and SEAL."""
    return _kernel_table(figures.part("kernels"))


def ntt(figures: Figures) -> str:
    """Both transforms at every ring degree."""
    return _kernel_table(figures.part("ntt"))


def _kernel_table(measured: list[dict[str, Any]]) -> str:
    sets = [name for name in measured[0]["sets"] if name != "seal"]
    best = sets[0]
    rows = []
    for row in measured:
        by_set = row["sets"]
        seal = by_set.get("seal")
        rows.append(
            [
                f"`{row['kernel']}`",
                str(row["degree"]),
                *(nanoseconds(by_set[name]["ns_per_element"]["median"]) for name in sets),
                nanoseconds(by_set[best]["gigabytes_per_second"]),
                *(times(by_set[n]["speedup"]["median"]) for n in sets if n != "portable"),
                "" if seal is None else nanoseconds(seal["ns_per_element"]["median"]),
                "" if seal is None else times(by_set[best]["seal_ratio"]["median"]),
            ]
        )
    over = [f"portable / {name}" for name in sets if name != "portable"]
    return table(["kernel", "N", *sets, f"{best}, GB/s", *over, "SEAL", f"SEAL / {best}"], rows)


def degrees(figures: Figures) -> str:
    """Nanoseconds per element of the best set at every ring degree."""
    best = figures.machines[0]["kernel_sets"][0]
    found = figures.kind("kernel", set=best)
    columns = sorted({row["degree"] for row in found})
    each = {
        (row["kernel"], row["degree"]): row["seconds"] / row["runs"] / row["elements"] * 1e9
        for row in found
    }
    names = dict.fromkeys(row["kernel"] for row in found)
    rows = [
        [f"`{name}`", *(nanoseconds(each[name, n]) if (name, n) in each else "" for n in columns)]
        for name in names
    ]
    return table([f"{best}, ns per element", *(f"N = {n}" for n in columns)], rows)


def scaling(figures: Figures) -> str:
    """Nanoseconds per value by number of values."""
    found = figures.kind("values")
    counts = sorted({row["values"] for row in found})
    cells = {(row["operation"], row["values"]): row for row in found}
    rows = []
    for count in counts:
        row = cells["encrypt", count]
        rows.append(
            [
                power(count),
                str(row["degree"]),
                f"{row['bytes'] / count:.2f}",
                *(
                    nanoseconds(cells[name, count]["seconds"] / count * 1e9)
                    for name in ("encrypt", "parse_add", "decrypt")
                ),
                duration(row["seconds"]),
            ]
        )
    head = ["values", "N", "bytes per value", "encrypt", "parse and add", "decrypt"]
    return table([*head, "whole encryption"], rows)


def clients(figures: Figures) -> str:
    """Time per client and value by number of clients."""
    rows = []
    for row in sorted(figures.kind("clients"), key=lambda row: row["clients"]):
        each = row["seconds"] / row["clients"]
        rows.append(
            [
                f"{row['clients']:,}",
                f"{row['bytes_per_value']:.2f}",
                duration(each),
                nanoseconds(each / row["values"] * 1e9),
                duration(row["seconds"]),
            ]
        )
    return table(["clients", "bytes per value", "each", "ns per value", "all"], rows)


def threads(figures: Figures) -> str:
    """Nanoseconds per value by number of threads."""
    found = figures.kind("threads")
    cells = {(row["operation"], row["threads"]): row for row in found}
    counts = sorted({row["threads"] for row in found})
    rows = []
    for name, label in (("encrypt", "encrypt"), ("parse_add", "parse and add"),
                        ("decrypt", "decrypt")):  # fmt: skip
        each = [cells[name, count]["seconds"] / cells[name, count]["values"] for count in counts]
        rows.append(
            [
                label,
                *(nanoseconds(t * 1e9) for t in each),
                *(f"{each[0] / t:.2f} x" for t in each[1:]),
            ]
        )
    head = [f"{count} thread{'s' if count > 1 else ''}" for count in counts]
    return table(["ns per value", *head, *(f"{c} against 1" for c in counts[1:])], rows)


def memory(figures: Figures) -> str:
    """Peaks beside the size of what is made."""
    labels = {
        "encrypt": "`encrypt(...).to_bytes()`, 11 million values",
        "stream": "pieces of a million values, encrypted into a file",
        "decrypt": "`decrypt_sum`, 11 million values",
    }
    found = {row["case"]: row for row in figures.kind("memory")}
    rows = []
    for case, label in labels.items():
        if case in found:
            peak, output = found[case]["peak"], found[case]["output"]
            rows.append([label, size(output), size(peak), f"{peak / output:.2f}"])
    if "aggregate" in found:
        for key, label in (("few", "2"), ("many", "1,000")):
            row = found["aggregate"][key]
            rows.append(
                [f"`Aggregator`, {label} clients, a million values each", size(row["output"]),
                 size(row["peak"]), f"{row['peak'] / row['output']:.2f}"]
            )  # fmt: skip
    return table(["case", "output or upload", "peak beyond what was there", "peak / output"], rows)


def rates(figures: Figures) -> str:
    """The rates that limits are computed from."""
    found = figures.part("stages")["rates"]
    rows = [
        [
            "bytes read and written in the cache, fastest moving kernel",
            f"{found['cache']:.0f} GB/s",
        ],
        ["`memcpy` in the cache, read and written", f"{found['memcpy_cache']:.0f} GB/s"],
        ["`memcpy` in main memory, read and written", f"{found['memcpy_memory']:.1f} GB/s"],
        ["random bytes (ChaCha20)", f"{found['random']:.2f} GB/s"],
        ["modular multiplications", f"{found['multiplications']:.2f} · 10^9 per second"],
    ]
    return table(["limit", "measured"], rows)


def limits(figures: Figures) -> str:
    """Stages of each operation per value: what they move, use, take, and could at best take."""
    labels = {"encrypt": "encrypt", "parse_add": "parse and add", "decrypt": "decrypt a sum"}
    document = figures.part("stages")
    memory_rate = document["rates"]["memcpy_memory"]
    parts = []
    for name, operation in document["operations"].items():
        rows = [
            [
                row["stage"],
                f"`{row['kernel']}`",
                f"{row['bytes']:.2f}",
                f"{row['random_bytes']:.2f}",
                f"{row['multiplications']:.2f}",
                f"{row['ns_per_value']:.3f}",
                f"{row['limit_ns_per_value']:.3f}",
                f"{row['share']:.0%}",
                row["bound"],
            ]
            for row in operation["stages"]
        ]
        kernel_sum, limit = operation["ns_per_value"], operation["limit_ns_per_value"]
        rows.append(
            ["**sum of the kernels**", "", "", "", "", f"**{kernel_sum:.3f}**", f"**{limit:.3f}**",
             f"**{limit / kernel_sum:.0%}**", ""]
        )  # fmt: skip
        whole = figures.operation(name)["ours"]["median"]
        rows.append(
            ["**whole operation, from Python**", "", "", "", "", f"**{whole:.3f}**",
             f"**{limit:.3f}**", f"**{limit / whole:.0%}**", ""]
        )  # fmt: skip
        traffic = _memory_traffic(figures, name)
        rows.append(
            ["input and output through main memory", "", f"{traffic:.2f}", "", "", "",
             f"{traffic / memory_rate:.3f}", "", "memory"]
        )  # fmt: skip
        head = [
            labels[name],
            "kernel",
            "bytes",
            "random bytes",
            "multiplications",
            "ns",
            "limit, ns",
        ]
        parts.append(table([*head, "share", "bound by"], rows))
    return "\n".join(parts)


def _memory_traffic(figures: Figures, name: str) -> float:
    """Bytes per value that must come from memory or go there once."""
    each = figures.part("parameters")["packed"]["bytes_per_value"]
    facts = figures.part("parameters")["packed"]
    primes = len(facts["coeff_modulus"]) - 1
    words = 8 * primes / facts["fields"]  # of one polynomial in 64-bit words
    return {"encrypt": 4 + each, "parse_add": each + 2 * 2 * words, "decrypt": 2 * each + 4}[name]


def large(figures: Figures) -> str:
    """Models of a billion and of seven billion parameters, and ten thousand clients."""
    streams = {(row["model"], row["max_weight"]): row for row in figures.kind("stream")}
    per_value = {
        weight: row["seconds"] / row["values"] for (_, weight), row in sorted(streams.items())
    }
    adding = {row["clients"]: row["seconds"] / row["clients"] / row["values"]
              for row in figures.kind("clients")}  # fmt: skip
    decrypting = figures.operation("decrypt")["ours"]["median"] * 1e-9
    rows = []
    for values, model in ((BILLION, "1B"), (7 * BILLION, "7B")):
        for count in (MAX_WEIGHT, 10_000):
            params = qn.Parameters.for_aggregation(max_weight=count)
            encryption = streams.get((values, count))
            measured = encryption is not None
            seconds = (
                encryption["seconds"] / encryption["values"] * values
                if encryption is not None
                else per_value.get(count, per_value[MAX_WEIGHT]) * values
            )
            add = adding.get(count) or adding[max(adding)]
            rows.append(
                [
                    f"{model}, {count:,} clients",
                    size(4 * values),
                    size(params.upload_bytes(values)),
                    f"{duration(seconds)}{'' if measured else ' *'}",
                    f"{duration(add * values * count)} *",
                    size(_sum_bytes(params) * values),
                    size(_sum_bytes(params) * PIECE),
                    f"{duration(decrypting * values)} *",
                ]
            )
    head = ["model, clients", "float32", "one upload", "encrypt", "parse and add all",
            "sum in memory", "sum of one piece", "decrypt"]  # fmt: skip
    return table(head, rows)


def _sum_bytes(params: qn.Parameters) -> float:
    """Bytes per value of an Aggregator: two polynomials of 64-bit words."""
    words = 2 * len(params.data_primes) * params.poly_degree
    return 8 * words / params.values_per_ciphertext


TABLES: dict[str, Callable[[Figures], str]] = {
    "readme": readme,
    "machine": machine,
    "targets": targets,
    "operations": operations,
    "bytes": sizes,
    "kernels": kernels,
    "ntt": ntt,
    "degrees": degrees,
    "values": scaling,
    "clients": clients,
    "threads": threads,
    "memory": memory,
    "rates": rates,
    "limits": limits,
    "large": large,
}
