"""What a finished run says about itself. Read with strict models: a record from elsewhere is understood or refused."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from results.spec import EvaluationSpec, LocalisationSpec, RadiusName, RunSpec

__all__ = ["SCHEMA_VERSION", "Evaluation", "Failure", "Localisation", "Record", "State"]

SCHEMA_VERSION = 1


State = Literal["done", "failed", "running", "interrupted", "new"]
"""What the files of a run say of it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Record(_Strict):
    """`record.json`: a finished training. Its presence means done.

    Attributes:
        run_id, spec: What was trained.
        started, finished: ISO 8601, UTC.
        selected: For each kept selection rule, the epoch and the validation (or, for the oracle, test) MAE there.
        train_count_mean: Mean count of the training labels as trained on; the constant prediction to beat.
        parameters: Trainable parameters of the network.
        environment: Python, platform, processor, device, threads, library versions.
        git: Commit of the benchmark's checkout and whether it had changes, where there is one.
        timings: Seconds of training, and per-step milliseconds of the whole step, the data and the loss.
        memory: Peak resident memory, and of the accelerator, MiB.
        search: The trials of a tuned recipe: parameters, validation MAE, run id.
        command: The command line that asked for it.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    spec: RunSpec
    started: str
    finished: str
    selected: dict[str, dict[str, float]]
    train_count_mean: float
    parameters: int
    environment: dict[str, Any]
    git: dict[str, Any]
    timings: dict[str, float | None]
    memory: dict[str, float | None]
    search: list[dict[str, Any]] = []
    command: str = ""

    @field_validator("environment")
    @classmethod
    def _libraries(cls, environment: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(environment.get("libraries") or {}, dict):
            raise ValueError("record.environment.libraries is no table")
        return environment


class Evaluation(_Strict):
    """`eval/<eval_id>/metrics.json`: one measurement of a run's weights. The per-image rows lie beside it.

    Attributes:
        run_id, evaluation: What was measured, and how.
        epoch: The epoch of the weights.
        images: Number of images.
        metrics: MAE, RMSE, NAE, bias (people), GAME(1-3), over the images.
        constant: The same for a constant count, the mean of the training labels.
        seconds: Time the evaluation took.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    evaluation: EvaluationSpec
    epoch: int
    images: int
    metrics: dict[str, float | None]
    constant: dict[str, float | None]
    seconds: float


class Localisation(_Strict):
    """`eval/<eval_id>/localisation.json`: where a run's weights find people. Points and matches lie beside it.

    Attributes:
        run_id, localisation: What was measured, and how.
        epoch: The epoch of the weights.
        images: Number of images.
        threshold: Least score of a point; None for a localizer that has no threshold.
        threshold_from: `val` (chosen there), `given`, or `none`.
        counts: MAE, RMSE, NAE and bias of the number of points, people; GAME(1-3) of the points.
        scores: For each radius: tp, fp, fn, precision, recall, f1 pooled over the images; ap, the average precision
            over the scores; error, the mean distance of matched pairs, pixels of the stored images.
        seconds: Time that finding and scoring took, without the network's.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    localisation: LocalisationSpec
    epoch: int
    images: int
    threshold: float | None
    threshold_from: Literal["val", "given", "none"]
    counts: dict[str, float | None]
    scores: dict[RadiusName, dict[str, float | None]]
    seconds: float


class Failure(_Strict):
    """`failed.json`: why a run ended early. A later `--retry-failed` goes on from its last checkpoint.

    Attributes:
        run_id, spec: What was tried.
        when: ISO 8601, UTC.
        reason: One line for people.
        traceback: For developers.
        epoch: Finished epochs.
    """

    schema_version: int = SCHEMA_VERSION
    run_id: str
    spec: RunSpec
    when: str
    reason: str
    traceback: str = ""
    epoch: int = 0
