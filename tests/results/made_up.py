"""Studies and stores that the tests of recorded studies write, change and compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from results.recorded import ALL_FILES
from results.schema import Evaluation, Failure, Localisation
from results.spec import EvaluationSpec, LocalisationSpec, RunSpec
from results.store import Store
from runners.localizers.base import Located
from runners.metrics.counting import constant, summary
from runners.metrics.localisation import (
    Heads,
    average_precision,
    count_errors,
    curve,
    image_points,
    parse_radii,
    pooled,
)
from runners.metrics.matching import gains
from tests.reports.fake_store import add_failure, add_run, fake_images, fake_spec, fake_store

UNICODE = "Zürich 人群 \u2028 𝔘 <b>& \\ \" '"
ODD_ROWS = (
    '{"epoch": 1, "lr": 0.1, "a": NaN, "b": null, "c": -0.0, "run_id": "x", "e": 5e-324, "n": 1}\n'
    '{"lr": 1, "epoch": 2, "a": -Infinity, "d": [1, {"é": null}], "t": true, "big": 123456789012345678901, "n": 1.5}\n'
    '{"epoch": 3, "half'
)


def measure(store: Store, spec: RunSpec, evaluation: EvaluationSpec, rows: pd.DataFrame) -> None:
    """Adds a measurement to a finished run, as a training does."""
    folder = store.run(spec.run_id)
    with np.errstate(all="ignore"):
        values = {"metrics": summary(rows), "constant": constant(folder.record().train_count_mean, rows["true"])}
    folder.add_evaluation(
        Evaluation(run_id=spec.run_id, evaluation=evaluation, epoch=4, images=len(rows), seconds=1.0, **values), rows
    )


SIDE = 64.0


def located(seed: int, images: int, least: int = 0) -> list[tuple[Heads, Located]]:
    """Heads with boxes and points near some of them; the first image has no points, the second no heads."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(images):
        heads = (
            rng.uniform(4, SIDE - 4, (0 if index == 1 else rng.integers(least, 9), 2)).astype(np.float32).astype(float)
        )
        points = np.concatenate([heads + rng.normal(0, 4, heads.shape), rng.uniform(0, SIDE, (2, 2))])[:: 1 + index % 2]
        points = points[: 0 if index == 0 else None].astype(np.float32).astype(float)
        scores = np.sort(rng.random(len(points)).astype(np.float32).astype(float))[::-1]
        half = rng.uniform(2, 5, (len(heads), 2))
        found.append((Heads(heads, np.concatenate([heads - half, heads + half], axis=1)), Located(points, scores)))
    return found


def measure_places(
    store: Store, spec: RunSpec, found: list[tuple[Heads, Located]], *, radii: tuple[str, ...] = ("4px", "sigma_l"),
    **changes: Any,
) -> Localisation:  # fmt: skip
    """Adds a measurement of places to a run, as `runners.localise` makes it; `changes` are of its specification."""
    parsed = parse_radii(radii)
    fields = {"localizer": "lm", "params": {"rule": "gl", "size": 3, "threshold": None}, "version": 1, "radii": radii}
    place = LocalisationSpec.model_validate(fields | {"main": parsed[-1].name} | changes)
    rows = pd.DataFrame([image_points(f"img_{i}", *one, parsed, (64, 48)) for i, one in enumerate(found)])
    scores: dict[str, Any] = {}
    curves = []
    for radius in parsed:
        scores[radius.name] = pooled(rows, radius.name)
        if len(parsed) <= 8 or radius.name == place.main:
            won = [gains(heads.points, at.points, at.scores, radius.of(heads)) for heads, at in found]
            whole = curve([at.scores for _, at in found], won, int(rows["true"].sum()))
            scores[radius.name] |= {"ap": average_precision(whole) if rows["true"].sum() else None}
            curves += [whole.assign(split=split, radius=radius.name) for split in ("val", "test")]
    measured = Localisation(
        run_id=spec.run_id, localisation=place, epoch=4, images=len(rows), threshold=0.25, threshold_from="val",
        counts=count_errors(rows), scores=scores, seconds=0.5,
    )  # fmt: skip
    store.run(spec.run_id).add_localisation(measured, rows, pd.concat(curves, ignore_index=True))
    return measured


def odd_places(store: Store) -> Store:
    """Measurements of places of every kind: see the comments."""
    pml, bl, l2, failed = (fake_spec(*which) for which in (("pml", 0), ("bl", 0), ("l2", 3), ("gl", 1)))
    measure_places(store, pml, located(1, 7))
    measure_places(store, pml, located(2, 7), selection="last", radii=("8px",), localizer="otm")
    measure_places(store, pml, located(1, 7), radii=("1:12", "sigma_s"), main="4px")  # a sweep: no errors, one curve
    nothing = [(heads, Located(np.zeros((0, 2)), np.zeros(0))) for heads, _ in located(3, 4)]
    measure_places(store, bl, nothing, params={"name": UNICODE.replace("\u2028", "")})  # an empty curve
    nobody = [(Heads(np.zeros((0, 2)), np.zeros((0, 4))), at) for _, at in located(4, 4)]
    measure_places(store, l2, nobody)  # no recall
    measure_places(store, failed, located(5, 3))
    return store


def odd_store(root: Path) -> Store:
    """Everything that a store may hold: see the comments."""
    store = fake_store(root, zoo=("pml", "bl"), seeds=(0,), images=9)
    first = fake_spec("pml", 0)
    measure(store, first, EvaluationSpec(selection="last"), fake_images(first, 0.3, 5).assign(id=list("äb人𝔘 ")))
    add_run(store, fake_spec("l2", 3), images=4, record={"command": UNICODE, "search": [{"lr": 1e-4, "mae": None}]})
    for spec, text in ((fake_spec("l2", 3), ""), (fake_spec("bl", 0), ODD_ROWS)):  # empty, and one that breaks off
        run = store.run(spec.run_id)
        run.history_file.write_text(text)
        run.finish(run.record())
    failed = fake_spec("gl", 1)
    store.run(first.run_id).fail(
        Failure(run_id=first.run_id, spec=first, when="w", reason="measuring", traceback="x\ny")
    )
    add_failure(store, failed, reason=UNICODE)  # no history at all
    store.run(fake_spec("chfl", 0).run_id).begin(fake_spec("chfl", 0))  # interrupted: no part of a study
    return store


def content(root: Path) -> dict[str, Any]:
    """What every file below a store says, in a form that `repr` or pandas compares to the bit."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.suffix == ".jsonl":
            lines = path.read_text(encoding="utf-8").splitlines()
            found[name] = repr([json.loads(line) for line in lines if line.endswith("}")])
        elif path.suffix == ".json":
            said = json.loads(path.read_text(encoding="utf-8"))
            said.pop("sealed", None)  # the sizes of tables depend on who packed them
            found[name] = repr(said)
        elif path.suffix == ".parquet":
            found[name] = pd.read_parquet(path)
    return found


def assert_same_content(one: Path, other: Path, without: str = "?") -> None:
    first, second = content(one), content(other)
    first = {name: value for name, value in first.items() if not name.startswith(without)}
    assert list(first) == list(second)
    for name, value in first.items():
        if isinstance(value, str):
            assert value == second[name], name
            continue
        pd.testing.assert_frame_equal(value, second[name], check_exact=True, obj=name)
        for column in {"mass", "people"} & set(value):
            for a, b in zip(value[column], second[name][column], strict=True):
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def tree(root: Path) -> dict[str, str]:
    """The hash of every file, and its time."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() + str(p.stat().st_mtime_ns) for p in files}


def nothing_wrong(frame: pd.DataFrame) -> list[str]:
    return []


def rehash(folder: Path, **changes: Any) -> None:
    """What somebody does who wants a changed study to be believed."""
    study = json.loads((folder / "study.json").read_text()) | changes
    study["sha256"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ALL_FILES if (folder / name).exists()
    }
    (folder / "study.json").write_text(json.dumps(study))


def edit_runs(folder: Path, change: Callable[[list[Any]], Any], **changes: Any) -> None:
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_bytes().splitlines()]
    change(lines)
    (folder / "runs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rehash(folder, **changes)


def edit_table(folder: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(folder / name)), folder / name, store_schema=False)
    rehash(folder)


def edit_images(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def put(*keys: Any) -> Callable[[list[Any]], None]:
    """Puts the last of `keys` where the others lead."""

    def change(lines: list[Any]) -> None:
        *path, last, value = keys
        place: Any = lines
        for key in path:
            place = place[key]
        place[last] = value

    return change
