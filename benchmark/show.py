"""What the terminal shows: the plan as a tree, the progress of a matrix, tables. Plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from benchmark.names import Choice
from benchmark.plan import Planned, Skipped, known_defaults
from reports.measured import loss_name
from reports.table import number
from results.atomic import printable
from results.store import State

__all__ = ["Matrix", "console", "plan_tree", "progress_console", "runs_tables"]


class _Console(Console):
    """A console that no name from a store, a study or a dataset can steer: markup is ours, control characters go."""

    def render_str(self, text: str, **how: Any) -> Text:
        """Markup as text, without what is not printable."""
        return super().render_str(printable(text, keep="\n"), **how)


console = _Console(highlight=False)
progress_console = _Console(highlight=False, stderr=True)
"""Progress is no result: it never mixes with what `--json` prints."""

_MARK = {"done": "[green]done[/]", "failed": "[red]failed[/]", "running": "[yellow]running[/]"}
_MARK |= {"interrupted": "[yellow]interrupted[/]", "new": "to run"}


def plan_tree(runs: Sequence[Planned | Skipped], states: dict[str, State]) -> Tree:
    """Datasets, then networks, then losses with their seeds; each run's state, each skipped one's reason."""
    tree = Tree(f"[bold]{_count(len(runs), 'run')}[/]")
    planned = [run for run in runs if isinstance(run, Planned)]
    settings: dict[str, list[Planned]] = {}
    for run in planned:
        settings.setdefault(_setting(run), []).append(run)
    for setting, members in settings.items():
        branch = tree.add(escape(setting))
        for loss, seeds in groupby(members, key=lambda run: run.loss):
            branch.add(f"[bold]{escape(loss)}[/]  {_seeds(list(seeds), states)}")
    skipped = [run for run in runs if isinstance(run, Skipped)]
    if skipped:
        branch = tree.add(f"[yellow]{_count(len(skipped), 'run')} skipped[/]")
        for reason, members_ in groupby(sorted(skipped, key=lambda run: run.reason), key=lambda run: run.reason):
            leaf = branch.add(escape(reason))
            for label in dict.fromkeys(run.label.rpartition(" · seed")[0] for run in members_):
                leaf.add(f"[dim]{escape(label)}[/]")
    return tree


def _seeds(runs: Sequence[Planned], states: Mapping[str, State]) -> str:
    """`seeds 0, 1 done, seed 2 to run`."""
    by_state: dict[State, list[str]] = {}
    for run in runs:
        by_state.setdefault(states[run.spec.run_id], []).append(str(run.spec.seed))
    return ", ".join(f"seed{'s' * (len(s) > 1)} {', '.join(s)} {_MARK[state]}" for state, s in by_state.items())


def _setting(run: Planned) -> str:
    """What a branch of the tree has in common."""
    spec = run.spec
    recipe = spec.recipe
    noise = "" if spec.noise == "none" else f", noise {spec.noise}"
    head = f"{spec.head} head" + ("" if spec.output == "abs" else f" ending in {spec.output}")
    return (
        f"{run.dataset}{noise} · {spec.backbone} ({head}, stride {spec.stride}, weights {spec.weights}) · "
        f"{recipe.name} recipe, {_count(recipe.epochs, 'epoch')} of {recipe.crop} px crops, batch {recipe.batch_size}, "
        f"lr {recipe.lr:g}"
    )


class Matrix:
    """Progress of all runs: a bar for the matrix with its ETA and one for each active run.

    Where the output is no terminal, one line when a run ends and one a minute in between.

    Args:
        labels: The runs' labels, by index.
    """

    heartbeat = 60.0

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = labels
        self.share = [0.0] * len(labels)
        self.failed: dict[int, str] = {}
        self.ended = 0
        self._started = self._spoke = time.monotonic()
        self._bars: dict[int, TaskID] = {}
        self._last_mae: dict[int, str] = {}
        self._held: set[int] = set()
        self._progress = Progress(
            TextColumn("{task.description}", table_column=None),
            BarColumn(bar_width=12),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            console=progress_console,
            disable=not progress_console.is_terminal,
        )
        self._all = self._progress.add_task(f"[bold]all {len(labels)} runs[/]", total=float(len(labels)), note="")

    def __enter__(self) -> Matrix:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def __call__(self, index: int, event: dict[str, Any]) -> None:
        """Takes an event of `run_jobs`."""
        kind = event["event"]
        if kind == "start" and index not in self._bars:
            shown = escape(_shortened(self.labels[index], 34))
            self._bars[index] = self._progress.add_task(shown, total=1.0, note="starting")
        elif kind in ("step", "epoch"):
            self._advance(index, 0.97 * event["step"] / max(event["steps"], 1), event)
        elif kind == "evaluate":
            self._note(index, f"testing {event['image']}")
        elif kind == "held":
            self._hold(index, event["holder"])
        elif kind == "again":
            self._say(f"[yellow]again[/]  {escape(self.labels[index])}: {escape(event['reason'])}")
        elif kind == "said":
            self._say(escape(event["text"]))
        elif kind in ("done", "failed"):
            self._end(index, event)
        if not progress_console.is_terminal and time.monotonic() - self._spoke > self.heartbeat:
            done = sum(self.share) / len(self.share)
            self._say(f"{self.ended} of {len(self.labels)} runs ended, {done:.0%} of the work done")

    def _advance(self, index: int, share: float, event: dict[str, Any]) -> None:
        self.share[index] = share
        if "val_mae" in event:
            self._last_mae[index] = f"MAE {event['val_mae']:.1f}"
        self._progress.update(self._bars[index], completed=share)
        self._note(index, self._last_mae.get(index, ""))
        self._progress.update(self._all, completed=sum(self.share), note=f"{self.ended} ended")

    def _note(self, index: int, note: str) -> None:
        self._progress.update(self._bars[index], note=note)

    def _hold(self, index: int, holder: str) -> None:
        """Another process has the run: its bar goes, and who has it is said once."""
        if index in self._bars:
            self._progress.remove_task(self._bars.pop(index))
        if index not in self._held:
            self._held.add(index)
            self._say(f"[yellow]waits[/] for {escape(holder)}: {escape(self.labels[index])}")

    def _end(self, index: int, event: dict[str, Any]) -> None:
        self.ended += 1
        self.share[index] = 1.0
        if index in self._bars:
            self._progress.remove_task(self._bars.pop(index))
        self._progress.update(self._all, completed=sum(self.share), note=f"{self.ended} ended")
        count = f"{self.ended:>{len(str(len(self.labels)))}}/{len(self.labels)}"
        if event["event"] == "failed":
            self.failed[index] = event["reason"]
            self._say(f"{count} [red]failed[/] {escape(self.labels[index])}")
        else:
            self._say(f"{count} [green]done[/]   {escape(self.labels[index])}")

    def _say(self, text: str) -> None:
        self._spoke = time.monotonic()
        seconds = int(self._spoke - self._started)
        progress_console.print(f"[dim]{seconds // 60:3d}:{seconds % 60:02d}[/] {text}", soft_wrap=True)


def _shortened(label: str, width: int) -> str:
    """A label cut in the middle: it begins with the loss and ends with the seed."""
    return label if len(label) <= width else label[: width - 10] + "…" + label[-9:]


def runs_tables(frame: pd.DataFrame) -> list[Table]:
    """For `benchmark list`: a table for each setting, one line a run and evaluation."""
    shown = []
    for _, group in frame.groupby(["dataset", "dataset_params", "noise", "backbone", "recipe", "recipe_epochs"]):
        first = group.iloc[0]
        data = Choice(first["dataset"], json.loads(first["dataset_params"]))
        noise = "" if first["noise"] == "none" else f" · {first['noise']}"
        terms = f"{first['recipe']} recipe, {_count(first['recipe_epochs'], 'epoch')}"
        title = escape(f"{data}{noise} · {first['backbone']} · {terms}")
        out = Table(title=title, title_justify="left", header_style="bold", pad_edge=False, box=None)
        for name in ("run", "state", "loss"):
            out.add_column(name, overflow="fold", min_width=8)
        for name in ("seed", "selected", "MAE"):
            out.add_column(name, justify="right")
        for row in group.to_dict("records"):
            loss = loss_name(row["loss"], row["loss_params"], known_defaults(row["loss"]))
            selected = row.get("selection")
            out.add_row(
                row["run_id"][:8],
                _MARK[row["state"]],
                escape(loss),
                str(row["seed"]),
                selected if isinstance(selected, str) else "",
                number(row.get("mae"), 1),
            )
        shown.append(out)
    return shown


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
