"""`benchmark list`, `status` and `doctor`: what a store holds, what exists by name, what this machine has."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.store import RunFolder

__all__ = ["doctor", "list_things", "status"]


def list_things(options: argparse.Namespace) -> int:
    """Lists the runs of a store, or names with one line each."""
    if options.what == "runs":
        return _list_runs(options)
    found = {
        "losses": _losses,
        "backbones": _backbones,
        "datasets": _datasets,
        "localizers": _localizers,
        "noises": _noises,
        "studies": _studies,
        "recipes": _recipes,
    }[options.what]()
    parameters = {name: _parameters(options.what, name) for name in found}
    if options.json:
        _dump([{"name": name, "about": about, "parameters": parameters[name]} for name, about in found.items()])
        return 0
    from rich.markup import escape
    from rich.padding import Padding

    from benchmark.show import console

    for name, about in found.items():
        console.print(f"[bold]{escape(name)}[/]  {escape(about)}")
        if parameters[name]:
            shown = ", ".join(f"{key}={value}" for key, value in parameters[name].items())
            console.print(Padding(f"[dim]{escape(shown)}[/]", (0, 0, 0, 4)))
    return 0


def status(options: argparse.Namespace) -> int:
    """Counts the runs by state, and gives the reason of every failure; 1 if there are any."""
    from results.atomic import printable
    from results.store import Store

    store = Store(options.output)
    states = {run.run_id: run.state() for run in store.runs()}
    folders = {run_id: store.run(run_id) for run_id in states}
    failed = {run_id: _reason(folder) for run_id, folder in folders.items() if folder.has_failure()}
    failed |= {run_id: said for run_id, folder in folders.items() if (said := _damage(folder, states[run_id]))}
    counts = Counter(states.values())
    if options.json:
        _dump({"output": str(store.root), "runs": len(states), **counts, "failures": failed})
    elif not states:
        print(f"no runs in {store.root}; `benchmark run` makes some")  # noqa: T201
    else:
        print(f"{store.root}: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items())))  # noqa: T201
        for run_id, reason in failed.items():
            print(f"  {run_id[:8]} failed: {printable(reason)}")  # noqa: T201
    return 1 if failed else 0


def _reason(folder: RunFolder) -> str:
    """Why a run failed, or why nobody can say."""
    from results.store import StoreError

    try:
        return folder.failure().reason
    except StoreError as error:
        return str(error)


def _damage(folder: RunFolder, state: str) -> str:
    """What is wrong with a run that says it is done."""
    from results.store import StoreError

    try:
        if state == "done":
            folder.check()
    except StoreError as error:
        return str(error)
    return ""


def doctor(options: argparse.Namespace) -> int:
    """Checks what the benchmark needs on this machine; 1 if something that it cannot do without is missing."""
    import torch

    from runners.data.check import where
    from runners.environment import describe, git_state

    cuda = torch.cuda.is_available()
    report: dict[str, Any] = describe(torch.device("cuda" if cuda else "cpu"))
    report["git"] = git_state()
    report["datasets"] = {item.name: str(item.found) if item.found else None for item in where(options.data_root)}
    if options.json:
        _dump(report)
        return 0
    for name in ("python", "platform", "processor", "cores", "device", "cuda"):
        print(f"{name:<10} {report[name]}")  # noqa: T201
    print(f"{'libraries':<10} " + ", ".join(f"{name} {version}" for name, version in report["libraries"].items()))  # noqa: T201
    missing = [name for name, version in report["libraries"].items() if version is None]
    found = [name for name, path in report["datasets"].items() if path]
    print(f"{'datasets':<10} {', '.join(found) or 'none found'}; `benchmark data list` says where to get the others")  # noqa: T201
    if missing:
        print(f"missing: {', '.join(missing)}; install with `pip install -c constraints.txt -e .`")  # noqa: T201
    return 1 if missing else 0


def _list_runs(options: argparse.Namespace) -> int:
    from benchmark.show import console, runs_tables
    from results.store import Store

    problems: list[str] = []
    frame = Store(options.output).load(problems=problems, checked=True)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if options.json:
        sys.stdout.write(frame.to_json(orient="records", indent=1) + "\n")
    elif frame.empty:
        console.print(f"no runs in {options.output}; `benchmark run` makes some")
    else:
        for table in runs_tables(frame):
            console.print(table)
            console.print()
        if "selection" in frame and (frame["selection"] == "test_oracle").any():
            console.print("test_oracle: selected on the test set, not comparable")
    return 1 if problems else 0


def _parameters(what: str, name: str) -> dict[str, Any]:
    """What can be set in brackets behind the name of a loss or a dataset, with its default."""
    from losses.discovery import parameters

    if what == "losses":
        from benchmark.plan import loss_defaults

        return dict(loss_defaults(name))
    if what == "localizers":
        from runners import localizers

        return localizers.defaults(name)
    if what == "datasets":
        from runners import data

        return {key: value for key, value in parameters(data.load(name)).items() if key != "root"}
    return {}


def _losses() -> dict[str, str]:
    import losses

    return {name: losses.load(name).reference for name in losses.names()}


def _backbones() -> dict[str, str]:
    from runners import backbones

    return {name: backbones.load(name).reference for name in backbones.names()} | {
        "timm:NAME": "any feature extractor of timm"
    }


def _datasets() -> dict[str, str]:
    from runners import data

    return {name: data.load(name).title for name in data.names()}


def _localizers() -> dict[str, str]:
    from runners import localizers

    return {name: localizers.load(name).reference for name in localizers.names()}


def _noises() -> dict[str, str]:
    from runners.data import noise

    return {"none": "clean labels"} | {
        f"{name}:{kind.example:g}": f"level in {kind.unit}, at most {kind.most:g}; combine kinds with +"
        for name, kind in noise.KINDS.items()
    }


def _studies() -> dict[str, str]:
    from benchmark.study import built_in, load_study

    return {name: load_study(name).title for name in built_in()}


def _recipes() -> dict[str, str]:
    from benchmark.recipes import RECIPES

    return dict(RECIPES)


def _dump(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, default=_text)
    sys.stdout.write("\n")


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
