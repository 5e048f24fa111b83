"""One run to execute: what is trained, and everything about *here* that is no part of a run's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from results.spec import EvaluationSpec, LocalisationSpec, RunSpec

__all__ = ["TRACKERS", "Job", "Place"]

TRACKERS = {"tensorboard": "TensorboardVisBackend", "wandb": "WandbVisBackend", "mlflow": "MLflowVisBackend"}
"""Experiment trackers and the visualizer backends that serve them."""


class Place(BaseModel):
    """Where and with what a run is executed.

    Attributes:
        data_root: Folder below which datasets are searched; None for those that need none.
        cache_dir: Folder of the prepared images; None for the user's cache folder.
        weights: File of pretrained weights where the spec names one.
        device: cpu, cuda or cuda:N.
        ranks: Processes that share each batch, one device each: the job's own and the next ones; see `runners.ranks`.
        threads: CPU threads of the process. One by default, so that results do not depend on how many runs go at once.
        workers: Data-loading processes; results do not depend on them. None: as many as suit the device that the engine
            gives.
        tracker: None or a name of `TRACKERS`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_root: Path | None = None
    cache_dir: Path | None = None
    weights: Path | None = None
    device: str = "cpu"
    ranks: PositiveInt = 1
    threads: PositiveInt = 1
    workers: Annotated[int, Field(ge=0)] | None = 0
    tracker: str | None = None


class Job(BaseModel):
    """A run, where it is executed, and what is measured on it.

    Attributes:
        spec: What is trained.
        output: Root of the store.
        place: Where and with what.
        evaluations: Measurements to make; each trained selection rule is kept as a weight file.
        localisations: Measurements of places to make, of the same selection rules.
        resume: Go on from the last checkpoint; otherwise an unfinished run starts afresh.
        search: Trials of a tuned recipe, for the record.
        command: The command line, for the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    spec: RunSpec
    output: Path
    place: Place = Place()
    evaluations: tuple[EvaluationSpec, ...] = (EvaluationSpec(),)
    localisations: tuple[LocalisationSpec, ...] = ()
    resume: bool = True
    search: tuple[dict[str, Any], ...] = ()
    command: str = ""
