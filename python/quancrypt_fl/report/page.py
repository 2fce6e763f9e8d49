"""The page: what stands in which section, rendered by the templates beside this file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from quancrypt_fl.report.compare import Comparison, Group, compare, groups_of
from quancrypt_fl.report.figures import percent, ratio
from quancrypt_fl.report.grids import (
    clients_grid,
    comparison_grids,
    overview_grid,
    receipts_grid,
    rounds_grid,
    seeds_grid,
)
from quancrypt_fl.report.leakage import leakage_section
from quancrypt_fl.report.pictures import (
    PROTECTION,
    accuracy_charts,
    time_charts,
    traffic_charts,
)
from quancrypt_fl.report.policy import content_hash, package_version
from quancrypt_fl.report.reading import Findings
from quancrypt_fl.report.runs import Run
from quancrypt_fl.report.values import shorten

__all__ = ["GENERATOR", "render_page"]

GENERATOR = '<meta name="generator" content="quancrypt report">'
"""Stands in the head of every page: by it a page is known as one of ours."""

_SIGNS = {"good": "✓", "warning": "!", "plain": "✗", "unknown": "?"}


def render_page(found: Findings, title: str, made: date | None = None) -> str:
    """The page as text.

    Parameters
    ----------
    found
        At least one run.
    title
        Heading of the page.
    made
        Date in its footer; today by default.
    """
    templates = Environment(
        loader=PackageLoader("quancrypt_fl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = templates.loader
    assert source is not None
    style, _, _ = source.get_source(templates, "page.css")
    runs = found.runs
    view = {
        "title": shorten(title),
        "lead": _lead(found),
        "made": (made or date.today()).isoformat(),
        "version": package_version(),
        "style": Markup(style),  # ours, from the package
        "style_hash": Markup(content_hash(style)),
        "many": len(runs) > 1,
        "problems": found.problems,
        "experiments": [
            *([leakage_section(found.leaks)] if found.leaks else []),
            *found.experiments,
        ],
        "runs": len(runs),
        **(_view_of_runs(runs) if runs else {}),
    }
    view["sections"] = _sections(view)
    return templates.get_template("page.html").render(view).lstrip()


def _view_of_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The sections that only a page with runs has."""
    groups = groups_of(runs)
    links = [f"run-{i}" for i in range(1, len(runs) + 1)]
    values = [run.config for run in runs]
    machines = [run.environment for run in runs]
    configs, environments = compare(values), compare(machines)
    return {
        "tiles": _tiles(runs, groups),
        "overview": overview_grid(runs, links),
        "seeds": seeds_grid(groups),
        "accuracy": accuracy_charts(groups),
        "traffic": traffic_charts(groups),
        "time": time_charts(groups),
        "receipts": receipts_grid(runs, links),
        "differing": comparison_grids(
            "differs", "What differs between the runs", runs, values, configs
        ),
        "shared": list(configs.shared.items()),
        "marked": configs.differing,
        "environments": comparison_grids(
            "machines", "What differs between the machines", runs, machines, environments
        ),
        "environment": list(environments.shared.items()),
        "details": [_detail(run, link, configs) for run, link in zip(runs, links, strict=True)],
    }


def _lead(found: Findings) -> str:
    runs = found.runs
    if len(runs) == 1:
        return _facts_of(runs[0])
    parts = []
    if found.experiments:
        parts.append(_counted(len(found.experiments), "experiment"))
    if runs:
        groups = _counted(len(groups_of(runs)), "configuration")
        parts.append(f"{_counted(len(runs), 'run')} of {groups}")
        parts.append(_few(sorted({run.dataset for run in runs})))
        parts.append(_few(sorted({run.model for run in runs})))
    return " · ".join(parts)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _facts_of(run: Run) -> str:
    facts = [
        run.method,
        run.dataset,
        run.model,
        _counted(run.clients, "client"),
        _counted(len(run.rounds), "round"),
        *([] if run.deployed else [f"seed {run.seed}"]),
    ]
    if run.deployed:
        facts.append("deployed on Flower" + (", not finished" if run.unfinished else ""))
    if run.final_round != run.rounds[-1].number:
        facts.append(f"stopped early, back to round {run.final_round:,}")
    if run.parameters is not None:
        facts.append(f"{run.parameters:,} parameters")
    return " · ".join(facts)


def _tiles(runs: Sequence[Run], groups: Sequence[Group]) -> list[dict[str, str]]:
    scored = [group for group in groups if group.mean_accuracy is not None]
    one = len(groups) == 1
    tiles = [_accuracy_tile(scored, one)] if scored else []
    encrypted = [run for run in runs if run.receipt.level in ("good", "warning")]
    known = [(share, run) for run in encrypted if (share := run.upload_ratio)]
    if known:
        share, run = min(known, key=lambda item: item[0])
        tiles.append(
            {
                "label": "Encrypted upload" if one else "Smallest encrypted upload",
                "figure": ratio(share),
                "note": f"of float32, {run.name}",
            }
        )
    shares = [
        (sum(parts.get(p, 0.0) for p in PROTECTION) / total, run)
        for run in encrypted
        if (total := sum((parts := run.seconds).values())) > 0
    ]
    if shares:
        cost, run = max(shares, key=lambda item: item[0])
        tiles.append(
            {
                "label": "Time for protection" if len(shares) == 1 else "Most time for protection",
                "figure": percent(cost, 1),
                "note": f"of a round, {run.name}",
            }
        )
    good = sum(run.receipt.level == "good" for run in runs)
    tiles.append(
        {
            "label": "Encrypted, no key at the server",
            "figure": f"{good} of {len(runs)}",
            "note": "run" if len(runs) == 1 else "runs, by their receipts",
        }
    )
    return tiles


def _accuracy_tile(groups: Sequence[Group], one: bool) -> dict[str, str]:
    """Of groups that have an accuracy, at least one."""
    best = max(groups, key=lambda group: group.mean_accuracy or 0.0)
    deviation = best.deviation
    spread = "" if deviation is None else f" ± {100 * deviation:.2f} over {len(best.runs)} seeds"
    ties = sum(group.mean_accuracy == best.mean_accuracy for group in groups)
    said = f"{best.label}{spread}" if ties == 1 else f"{ties} configurations alike"
    return {
        "label": "Final test accuracy" if one else "Best final test accuracy",
        "figure": percent(best.mean_accuracy),
        "note": said,
    }


def _detail(run: Run, link: str, configs: Comparison) -> dict[str, Any]:
    shown = rounds_grid(run, f"{link}-rounds")
    return {
        "name": link,
        "title": run.name,
        "lead": _facts_of(run),
        "receipt": run.receipt,
        "sign": _SIGNS[run.receipt.level],
        "rounds": shown,
        "clients": clients_grid(run, f"{link}-clients"),
        "rounds_said": shown.caption[0].lower() + shown.caption[1:],
        "config": [
            *((name, run.config[name]) for name in configs.differing if name in run.config),
            *configs.shared.items(),
        ],
    }


def _sections(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    experiments = [(item.name, item.title) for item in view["experiments"]]
    if not view["runs"]:
        return experiments
    return [
        ("overview", "Overview"),
        *experiments,
        *([("accuracy", "Accuracy")] if view["accuracy"] else []),
        *([("bytes", "Bytes")] if view["traffic"] else []),
        *([("time", "Time")] if view["time"] else []),
        ("receipts", "Receipts"),
        ("configuration", "Configuration"),
        *([("environment", "Environment")] if view["environment"] or view["environments"] else []),
        ("runs", "Runs" if view["many"] else "The run"),
    ]
