"""The Markdown table of an experiment: ours beside the published figures, checks and footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["checks_table", "markdown", "markdown_table"]

_LEVEL = "95 %"


def markdown(document: Mapping[str, Any]) -> str:
    """The document of ``experiment.json`` for people.

    Parameters
    ----------
    document
        See :mod:`quancrypt_fl.experiments.runner`.
    """
    summary = document["summary"]
    parts = [f"**{document['title']}.** {document['question']}\n"]
    if summary["rows"]:
        table = _accuracy if summary["kind"] == "accuracy" else _measured
        parts.append(table(summary))
    if summary["checks"]:
        parts.append(checks_table(summary["checks"]))
    parts.append("".join(f"- {note}\n" for note in [*_reading(summary), *summary["notes"]]))
    parts.append(_closing(document))
    return "\n".join(part for part in parts if part)


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """A table; columns after the first ``left`` are right-aligned."""
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    lines = [head, rule, *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def checks_table(checks: Sequence[Mapping[str, Any]]) -> str:
    """What must hold, what was measured, and whether it holds."""
    verdicts = {True: "yes", False: "**no**", None: "not measured"}
    rows = [
        [
            check["text"],
            check["basis"],
            check["required"],
            check["measured"],
            verdicts[check["passed"]],
        ]
        for check in checks
    ]
    return markdown_table(["what must hold", "measured on", "required", "measured", "holds"], rows)


def _accuracy(summary: Mapping[str, Any]) -> str:
    rows = []
    for row in summary["rows"]:
        published = row["published_best_accuracy"]
        share = row["upload_bytes_per_round"] / row["float32_update_bytes"]
        rows.append(
            [
                row["group"],
                row["label"],
                str(row["rounds"]),
                str(len(row["seeds"])),
                spread(row["best_accuracy"]),
                "–" if published is None else f"{published:.2f}",
                spread(row["final_accuracy"]),
                "–" if row["best_difference"] is None else spread(row["best_difference"], sign="+"),
                f"{share:.2f}",
            ]
        )
    head = [
        summary["group_heading"],
        summary["label_heading"],
        "rounds",
        "seeds",
        "best accuracy (%)",
        "published (%)",
        "final accuracy (%)",
        "best, against Vanilla-FL (points)",
        "upload / float32",
    ]
    return markdown_table(head, rows)


def _measured(summary: Mapping[str, Any]) -> str:
    """Tables that a measurement has laid out itself: ``tables`` of ``head`` and ``rows``."""
    parts = [
        f"{table['title']}\n\n{markdown_table(table['head'], table['rows'], table['left'])}"
        for table in summary["tables"]
    ]
    return "\n".join(parts)


def spread(interval: Mapping[str, Any], sign: str = "") -> str:
    """``98.41 ± 0.12``; without an interval for a single value."""
    mean = f"{interval['mean']:{sign}.2f}"
    if interval["high"] is None:
        return mean
    return f"{mean} ± {interval['high'] - interval['mean']:.2f}"


def _reading(summary: Mapping[str, Any]) -> list[str]:
    if summary["kind"] != "accuracy":
        return []
    return [
        f"± is the {_LEVEL} confidence interval of the mean over seeds (Student's t). Differences "
        "are formed seed by seed, between runs of the same split and initial weights.",
        "Best is the largest test accuracy of all rounds, as published; final that of the last.",
    ]


def _closing(document: Mapping[str, Any]) -> str:
    """Where the figures come from, and what is missing."""
    failed = [cell for cell in document["cells"] if cell["state"] == "failed"]
    left = [cell for cell in document["cells"] if cell["state"] == "left"]
    lines = [f"- Failed: `{cell['id']}`: {_one_line(cell['error'])}\n" for cell in failed]
    if left:
        lines.append(f"- Incomplete: {len(left)} of {len(document['cells'])} cells have not run.\n")
    where = document["environment"]
    sizes = ", ".join(
        f"{name}: {size['train']:,} training and {size['test']:,} test images"
        for name, size in document["data"].items()
    )
    lines.append(
        f"\n`{_command(document)} --scale {document['scale']}`"
        f"{f', {sizes}' if sizes else ''}; {where['cpu']}, {document['device']}, "
        f"torch {where['torch']}, quancrypt-native {where['quancrypt_native']} "
        f"({where['backend']}).\n"
    )
    return "".join(lines)


def _command(document: Mapping[str, Any]) -> str:
    """Documents of earlier versions name the experiment alone."""
    return str(document.get("command", f"quancrypt experiment {document['name']}"))


def _one_line(text: str) -> str:
    return " ".join(text.split())
