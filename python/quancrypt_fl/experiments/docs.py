"""``python -m quancrypt_fl.experiments.docs RESULTS... DOCUMENT``: results into a document.

Every folder of results (the ``--out`` of an experiment) replaces what stands between
``<!-- experiments:NAME -->`` and ``<!-- /experiments -->`` in the document by its table and figure;
the PNG file is copied next to the document. A name that has no place there is an error.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from quancrypt_fl.experiments.tables import markdown

__all__ = ["fill", "main"]

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


def main(arguments: Sequence[str]) -> None:
    """Fill a document from folders of results."""
    if len(arguments) < 2:
        raise SystemExit("usage: python -m quancrypt_fl.experiments.docs RESULTS... DOCUMENT")
    *folders, document = (Path(argument) for argument in arguments)
    text = document.read_text(encoding="utf-8")
    for folder in folders:
        results = json.loads((folder / "experiment.json").read_bytes())
        name, table = results["name"], markdown(results)
        figure = folder / "figure.png"
        if figure.is_file():
            copy = document.with_name(f"experiment-{name}.png")
            shutil.copyfile(figure, copy)
            table = f"{table.rstrip()}\n\n![{results['title']}]({copy.name})\n"
        text = fill(text, name, table)
    document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
