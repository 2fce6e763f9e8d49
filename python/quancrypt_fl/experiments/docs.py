"""``python -m quancrypt_fl.experiments.docs RESULTS... DOCUMENT``: results into a document.

Every folder of results (the ``--out`` of an experiment) replaces what stands between
``<!-- experiments:NAME -->`` and ``<!-- /experiments -->`` in the document by its table and figure;
the PNG file is copied next to the document. A document may have a place of its own for another
scale, ``NAME-standard`` or ``NAME-paper``, which is then taken. ``<!-- experiments:headline -->``
is replaced by one table of all accuracies in RESULTS, a line for each group and a column for each
method. A name that has no place is an error, unless there is a headline.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quancrypt_fl.experiments.tables import markdown, markdown_table, spread

__all__ = ["fill", "headline", "main"]

_HEADLINE = "headline"

_PLACE = "(<!-- experiments:{name} -->\n).*?(<!-- /experiments -->)"


def fill(text: str, name: str, table: str) -> str:
    """``text`` with the place of experiment ``name`` filled.

    Raises
    ------
    SystemExit
        If there is no such place.
    """
    place = re.compile(_PLACE.format(name=re.escape(name)), re.DOTALL)
    filled, count = place.subn(lambda match: f"{match[1]}{table.strip()}\n{match[2]}", text)
    if count == 0:
        known = ", ".join(re.findall(r"<!-- experiments:([a-z0-9-]+) -->", text)) or "none"
        raise SystemExit(f"there is no place for {name!r}; there are: {known}")
    return filled


def headline(documents: Sequence[Mapping[str, Any]]) -> str:
    """Best accuracies by method, each beside the published one, and the commands behind them."""
    found = [document for document in documents if document["summary"]["kind"] == "accuracy"]
    methods = list(
        dict.fromkeys(row["label"] for document in found for row in document["summary"]["rows"])
    )
    lines = []
    for document in found:
        groups: dict[str, dict[str, Mapping[str, Any]]] = {}
        for row in document["summary"]["rows"]:
            groups.setdefault(row["group"], {})[row["label"]] = row
        for group, rows in groups.items():
            subject = f"{document['title'].partition(':')[0]}, {group}"
            rounds = next(iter(rows.values()))["rounds"]
            cells = [_beside_published(rows[m]) if m in rows else "–" for m in methods]
            lines.append([subject, str(rounds), *cells])
    commands = [f"`quancrypt experiment {d['name']} --scale {d['scale']}`" for d in found]
    table = markdown_table(["best accuracy, % (published, 300 rounds)", "rounds", *methods], lines)
    return f"{table}\n± is the 95 % interval over seeds; {' and '.join(commands)}.\n"


def _beside_published(row: Mapping[str, Any]) -> str:
    published = row["published_best_accuracy"]
    return spread(row["best_accuracy"]) + ("" if published is None else f" ({published:.2f})")


def main(arguments: Sequence[str]) -> None:
    """Fill a document from folders of results."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m quancrypt_fl.experiments.docs RESULTS... DOCUMENT")
    *folders, document = (Path(argument) for argument in arguments)
    text = document.read_text(encoding="utf-8")
    places = set(re.findall(r"<!-- experiments:([a-z0-9-]+) -->", text))
    every = {folder: json.loads((folder / "experiment.json").read_bytes()) for folder in folders}
    if _HEADLINE in places:
        text = fill(text, _HEADLINE, headline(list(every.values())))
    for folder, results in every.items():
        name, table = results["name"], markdown(results)
        if (of_scale := f"{name}-{results['scale']}") in places:
            name = of_scale
        if name not in places and _HEADLINE in places:
            continue
        figure = folder / "figure.png"
        if figure.is_file():
            copy = document.with_name(f"experiment-{name}.png")
            shutil.copyfile(figure, copy)
            table = f"{table.rstrip()}\n\n![{results['title']}]({copy.name})\n"
        text = fill(text, name, table)
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
