"""Two runs on a tiny crowd, a density loss and P2P, whose weights are used on images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmark.plan import Planned, plan
from benchmark.study import validated
from results.spec import EvaluationSpec
from results.store import RunFolder, Store
from runners import data
from runners.data.datasets.base import CrowdDataset
from runners.execute import execute
from runners.job import Job, Place
from tests.runners.crowd_folder import crowd_folder

SCALE = 0.7
LOSSES = ["pml", "p2p"]


class Trained(NamedTuple):
    """Where the runs, their data and their prepared images lie."""

    store: Store
    root: Path
    cache: Path
    ids: dict[str, str]

    def run(self, loss: str) -> RunFolder:
        return self.store.run(self.ids[loss])

    def dataset(self) -> CrowdDataset:
        return data.build("folder", root=self.root, scale=SCALE)

    def copy(self, place: Path, loss: str = "pml") -> RunFolder:
        """A run that may be damaged."""
        shutil.copytree(self.run(loss).path, place / "runs" / self.ids[loss])
        return Store(place / "runs").run(self.ids[loss])


def train(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Images of 100 px, 70 px when prepared: neither fits the networks' multiple or the stride."""
    place = tmp_path_factory.mktemp("predict")
    root = crowd_folder(place / "crowd", size=100)
    for file in (root / "test").glob("*.json"):  # a head that is left of the edge of a window, but not in float32
        file.write_text(json.dumps([*json.loads(file.read_text()), [(64 - 1e-7) / SCALE, 30.0]]))
    ids = {}
    for loss, epochs in zip(LOSSES, (2, 12), strict=True):
        axes = {"losses": [loss], "backbones": ["tiny"], "datasets": [f"folder[scale={SCALE}]"], "weights": "none"}
        overrides = {"epochs": epochs, "batch_size": 2, "crop": 64, "lr": 3e-3}
        (run,) = plan(validated(axes | {"overrides": overrides}, "test"), root)
        assert isinstance(run, Planned), run.reason
        task = Job(
            spec=run.spec,
            output=place / "runs",
            place=Place(data_root=root, cache_dir=place / "cache"),
            evaluations=(EvaluationSpec(), EvaluationSpec(selection="last"), EvaluationSpec(split="val")),
        )
        assert execute(task, lambda event: None)
        ids[loss] = run.spec.run_id
    return Trained(Store(place / "runs"), root, place / "cache", ids)


def stored(folder: RunFolder, evaluation: EvaluationSpec = EvaluationSpec()) -> dict[str, float]:  # noqa: B008
    rows = folder.images(evaluation)
    return dict(zip(rows["id"], rows["predicted"], strict=True))
