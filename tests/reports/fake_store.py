"""A store full of made-up runs: real files in the real layout, numbers drawn from a known model.

The predicted count of image i by run (loss, seed) is t_i (1 + quality * z) + seed effect, so that a loss with a smaller
`quality` is better, and losses of the same quality differ by chance only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

import losses
from benchmark.plan import loss_defaults
from results.schema import Evaluation, Failure, Localisation, Record
from results.spec import EvaluationSpec, LocalisationSpec, Recipe, RunSpec
from results.store import Store
from runners import localizers
from runners.metrics.counting import constant, summary
from runners.metrics.localisation import Heads, count_errors, image_points, parse_radii, pooled

QUALITY = {"pml": 0.10, "l2": 0.25, "bl": 0.14, "dm_count": 0.16, "gl": 0.11, "chfl": 0.12, "noisecc": 0.15, "p2p": 0.2}
WINDOWS = (3, 4)


def fake_spec(loss: str = "pml", seed: int = 0, **changes: Any) -> RunSpec:
    """A specification; `recipe` takes a table of changes to the shared recipe."""
    recipe = Recipe(**({"epochs": 5} | changes.pop("recipe", {})))
    params = loss_defaults(loss) | changes.pop("loss_params", {})
    fields: dict[str, Any] = {
        "loss": loss, "loss_params": params, "loss_version": losses.load(loss).version, "backbone": "vgg19",
        "head": "points" if loss == "p2p" else "bl", "stride": 8, "output": "abs", "weights": "imagenet",
        "weights_hash": "timm:vgg19", "dataset": "ucf_qnrf", "dataset_params": {}, "dataset_hash": "d0",
        "noise": "none", "noise_seed": 0, "recipe": recipe, "seed": seed,
    }  # fmt: skip
    return RunSpec.model_validate(fields | changes)


def fake_images(spec: RunSpec, quality: float, count: int, seed_effect: float = 0.02) -> pd.DataFrame:
    """The per-image rows of one run: the same images for every run of a dataset."""
    crowd = np.random.default_rng([1, *spec.dataset.encode()])
    true = np.round(crowd.lognormal(4.5, 0.9, count)).astype(int)
    if count > 3:
        true[:2] = 0
    rng = np.random.default_rng(list(spec.run_id.encode()))
    share = quality * rng.standard_normal(count) + seed_effect * rng.standard_normal()
    predicted = np.maximum(true * (1 + share) + 2 * rng.standard_normal(count), 0.0)
    rows = []
    for index, (t, p) in enumerate(zip(true, predicted, strict=True)):
        people = crowd.multinomial(t, np.full(np.prod(WINDOWS), 1 / np.prod(WINDOWS))).astype(np.int32)
        mass = rng.dirichlet(np.ones(len(people))).astype(np.float32) * np.float32(p)
        rows.append(
            {"id": f"img_{index:04d}", "height": 64 * WINDOWS[0], "width": 64 * WINDOWS[1], "true": int(t)}
            | {"predicted": float(p), "game1": abs(p - t) * 1.1, "game2": abs(p - t) * 1.3, "game3": abs(p - t) * 1.6}
            | {"window_rows": WINDOWS[0], "mass": mass, "people": people}
        )
    return pd.DataFrame(rows)


def add_run(
    store: Store,
    spec: RunSpec,
    *,
    quality: float | None = None,
    images: int = 40,
    selection: str = "val",
    split: str = "test",
    record: Mapping[str, Any] | None = None,
    train_mae: bool = False,
) -> None:
    """Writes a finished run with one evaluation; older ones have no `train_mae` in their epochs."""
    folder = store.run(spec.run_id)
    folder.begin(spec)
    rows = fake_images(spec, QUALITY[spec.loss] if quality is None else quality, images)
    mean = float(rows["true"].mean())
    rng = np.random.default_rng(list(spec.run_id.encode()))
    with folder.history_file.open("w", encoding="utf-8") as file:
        for epoch in range(1, spec.recipe.epochs + 1):
            loss = 100 / epoch + rng.random()
            row = {"epoch": epoch, "lr": 1e-4, "loss": loss, "term/count": loss, "val_mae": 60 / epoch + rng.random()}
            row |= {"train_mae": 40 / epoch + rng.random()} if train_mae else {}
            file.write(pd.Series(row | {"val_rmse": 90 / epoch, "seconds": 1.0}).to_json() + "\n")
    environment = {"processor": "Test CPU", "device": "cpu", "threads": 1, "python": "3.11.7", "platform": "Linux"}
    fields: dict[str, Any] = {
        "run_id": spec.run_id, "spec": spec, "started": "2026-11-25T00:00:00+00:00",
        "finished": "2026-11-25T00:10:00+00:00", "selected": {"val": {"epoch": 4, "mae": 12.5}},
        "train_count_mean": mean, "parameters": 123_456,
        "environment": environment | {"libraries": {"torch": "2.15.0"}}, "git": {"commit": "c" * 40, "dirty": False},
        "timings": {"train_seconds": 60.0, "step_ms": 100 + rng.random(), "data_ms": 1.0, "loss_ms": 5 + rng.random()},
        "memory": {"peak_rss_mib": 800.0, "peak_device_mib": None}, "command": "benchmark run --losses pml <b>&",
    }  # fmt: skip
    folder.finish(Record.model_validate(fields | dict(record or {})))
    evaluation = EvaluationSpec(selection=selection, split=split)
    folder.add_evaluation(
        Evaluation(
            run_id=spec.run_id, evaluation=evaluation, epoch=4, images=images, metrics=summary(rows),
            constant=constant(mean, rows["true"]), seconds=1.0,
        ),
        rows,
    )  # fmt: skip


def add_places(
    store: Store,
    spec: RunSpec,
    localizer: str = "lm",
    *,
    hit: float = 0.7,
    radii: tuple[str, ...] = ("4px", "8px"),
    params: Mapping[str, Any] | None = None,
    version: int = 1,
) -> Localisation:
    """Writes a measurement of places of a finished run: a head is hit with the chance `hit`, at smaller radii less."""
    folder = store.run(spec.run_id)
    names = [radius.name for radius in parse_radii(radii)]
    images = folder.images(folder.evaluations()[0].evaluation, ["id", "true", "height", "width"])
    rng = np.random.default_rng([*spec.run_id.encode(), *localizer.encode()])
    predicted = rng.poisson(images["true"])
    counts = {
        radius: rng.binomial(np.minimum(predicted, images["true"]), hit * (0.5 + 0.5 * place / len(names)))
        for place, radius in enumerate(names, 1)
    }
    rows = images.assign(predicted=predicted, **{f"tp_{radius}": tp for radius, tp in counts.items()})
    rows = rows.assign(**{f"error_{radius}": 2.0 * tp for radius, tp in counts.items()})
    all_params = localizers.defaults(localizer) | dict(params or {})
    spec_of = LocalisationSpec(localizer=localizer, params=all_params, version=version, radii=radii, main=names[-1])
    scores = {radius: pooled(rows, radius) | {"ap": 0.5} for radius in names}
    measured = Localisation(
        run_id=spec.run_id, localisation=spec_of, epoch=4, images=len(rows), threshold=0.25, threshold_from="val",
        counts=count_errors(rows), scores=scores, seconds=1.0,
    )  # fmt: skip
    steps = np.linspace(1.0, 0.0, 5)
    curve = pd.DataFrame(
        {"threshold": steps, "tp": 1, "predicted": 2, "precision": 0.5, "recall": 1 - steps, "f1": 0.5}
        | {"split": "test", "radius": names[-1]}
    )
    folder.add_localisation(measured, rows, curve)
    return measured


def add_points(store: Store, spec: RunSpec, *, hit: float = 0.7, radius: str = "8px") -> Localisation:
    """Writes a measurement of places with points, heads and matches; a head has a point beside it with chance `hit`."""
    folder = store.run(spec.run_id)
    images = folder.images(folder.evaluations()[0].evaluation, ["id", "true", "height", "width"])
    crowd = np.random.default_rng(7)
    rng = np.random.default_rng(list(spec.run_id.encode()))
    radii = parse_radii([radius])
    rows = []
    for name, true, height, width in images.itertuples(index=False):
        heads = crowd.random((true, 2)) * (width, height)
        near = heads[rng.random(true) < hit] + rng.normal(0, 3, 2)
        points = np.concatenate([near, rng.random((rng.poisson(5), 2)) * (width, height)])
        rows.append(image_points(name, Heads(heads), _Located(points, None), radii, (height, width)))
    frame = pd.DataFrame(rows)
    spec_of = LocalisationSpec(
        localizer="lm", params=localizers.defaults("lm"), version=1, radii=(radius,), main=radius
    )
    measured = Localisation(
        run_id=spec.run_id, localisation=spec_of, epoch=4, images=len(frame), threshold=0.25, threshold_from="val",
        counts=count_errors(frame), scores={radius: pooled(frame, radius) | {"ap": 0.5}}, seconds=1.0,
    )  # fmt: skip
    curve = pd.DataFrame({name: [] for name in ("threshold", "tp", "predicted", "precision", "recall", "f1")})
    folder.add_localisation(measured, frame, curve.assign(split="test", radius=radius))
    return measured


class _Located(NamedTuple):
    points: npt.NDArray[np.float64]
    scores: None


def defaults(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The default parameters of the losses of a frame."""
    return {name: dict(loss_defaults(name)) for name in set(frame.get("loss", []))}


def add_failure(store: Store, spec: RunSpec, reason: str = "the loss is not finite: <loss> nan") -> None:
    """Writes a failed run."""
    folder = store.run(spec.run_id)
    folder.begin(spec)
    folder.fail(Failure(run_id=spec.run_id, spec=spec, when="2026-11-25T00:00:00+00:00", reason=reason, epoch=2))


def fake_store(
    root: Path,
    zoo: Iterable[str] = ("pml", "bl", "l2"),
    seeds: Iterable[int] = range(3),
    *,
    images: int = 40,
    backbones: Iterable[str] = ("vgg19",),
    datasets: Iterable[str] = ("ucf_qnrf",),
    noises: Iterable[str] = ("none",),
) -> Store:
    """A store with every combination of the axes."""
    store = Store(root)
    for loss, seed, backbone, dataset, noise in product(zoo, seeds, backbones, datasets, noises):
        add_run(store, fake_spec(loss, seed, dataset=dataset, backbone=backbone, noise=noise), images=images)
    return store
