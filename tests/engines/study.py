"""A small study for every engine, its runs by local processes to compare with, and what an engine told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmark.plan import Planned, plan
from benchmark.study import validated
from results.spec import EvaluationSpec
from results.store import Store
from runners.engines import local
from runners.job import Job, Place
from tests.runners.crowd_folder import crowd_folder

RULES = ("val", "last")


class Told:
    """The events of a study.

    Attributes:
        events: All but the idle ones, with the index of their job.
        then: Called with each, such as to kill something at the right moment.
    """

    def __init__(self, then: Callable[[int, dict[str, Any]], None] = lambda index, event: None) -> None:
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.then = then

    def __call__(self, index: int, event: dict[str, Any]) -> None:
        if event["event"] != "idle":
            self.events.append((index, event))
            print(index, event)
        self.then(index, event)

    def of(self, kind: str) -> list[int]:
        """The jobs that an event was told of."""
        return [index for index, event in self.events if event["event"] == kind]


def jobs(folder: Path, store: str, epochs: int = 3, losses: Sequence[str] = ("pml", "l2", "bl")) -> list[Job]:
    """A job for each loss, on a tiny crowd in `folder`."""
    root = folder / "crowd"
    if not root.is_dir():
        crowd_folder(root)
    recipe = {"epochs": epochs, "batch_size": 4, "crop": 64, "lr": 1e-3}
    axes = {"losses": list(losses), "backbones": ["mcnn"], "datasets": ["folder"], "weights": "none"}
    place = Place(data_root=root, cache_dir=folder / "cache", workers=None)
    found = []
    for run in plan(validated(axes | {"overrides": recipe}, "test"), root):
        assert isinstance(run, Planned), run.reason
        evaluations = tuple(EvaluationSpec(selection=rule) for rule in RULES)
        found.append(Job(spec=run.spec, output=folder / store, place=place, evaluations=evaluations))
    return found


def same_runs(ours: Sequence[Job], theirs: Sequence[Job]) -> None:
    """All are done; weights, per-image rows, selected epochs and history (but for seconds) have the same bits."""
    for one, other in zip(ours, theirs, strict=True):
        a, b = (Store(task.output).run(task.spec.run_id) for task in (one, other))
        assert a.state() == b.state() == "done"
        assert a.record().selected == b.record().selected
        assert a.record().spec == b.record().spec
        for rule in RULES:
            left, right = load_file(a.weights(rule)), load_file(b.weights(rule))
            assert left.keys() == right.keys()
            assert all(torch.equal(left[name], right[name]) for name in left)
            pd.testing.assert_frame_equal(
                a.images(EvaluationSpec(selection=rule)), b.images(EvaluationSpec(selection=rule)), check_exact=True
            )
        pd.testing.assert_frame_equal(
            a.history().drop(columns="seconds"), b.history().drop(columns="seconds"), check_exact=True
        )


def left_halfway(jobs: Sequence[Job]) -> list[Path]:
    """Interrupted runs of local processes; a file in each that goes only when they start afresh."""
    reached: dict[int, int] = {}

    def interrupt(index: int, event: dict[str, Any]) -> None:
        reached[index] = max(reached.get(index, 0), event.get("epoch", 0))
        if all(reached.get(each, 0) >= 2 for each in range(len(jobs))):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run_jobs(jobs, local.Options(jobs=len(jobs)), Told(interrupt))
    assert all(checkpoints(job) for job in jobs)
    left = [Store(job.output).run(job.spec.run_id).work / "left.txt" for job in jobs]
    for path in left:
        path.write_text("of the first attempt")
    return left


def resumed_from(job: Job) -> int:
    """The epoch from which the process that finished a run went on."""
    return int(Store(job.output).run(job.spec.run_id).record().timings["resumed_from_epoch"] or 0)


def checkpoints(job: Job) -> list[Path]:
    return list(Store(job.output).run(job.spec.run_id).work.glob("checkpoint-*.pth"))
