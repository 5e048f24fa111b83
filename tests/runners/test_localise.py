"""Scoring a trained run's localizers: thresholds from val, pixels of the stored images, every number recomputed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from benchmark.localizing import localisations
from benchmark.study import validated
from results.schema import Localisation
from results.spec import EvaluationSpec, LocalisationSpec
from results.store import RunFolder
from runners import build, counter, localizers
from runners.execute import execute
from runners.job import Job, Place
from runners.localise import stored_heads
from runners.predict import Predictor
from tests.runners.trained import Trained, train

LOCALIZERS = {"pml": ["lm", "otm", "lm[rule=fidtm,threshold=0.4]"], "p2p": ["proposals"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory)


def specs(trained: Trained, loss: str, radii: tuple[str, ...] = ("4", "20")) -> tuple[LocalisationSpec, ...]:
    axes = {"losses": [loss], "backbones": ["tiny"], "datasets": ["folder"], "radii": list(radii)}
    return localisations(validated(axes | {"localizers": LOCALIZERS[loss]}, "test"), trained.run(loss).spec())


def score(trained: Trained, loss: str) -> list[dict[str, object]]:
    """Scores a finished run; the events that were reported."""
    events: list[dict[str, object]] = []
    place = Place(data_root=trained.root, cache_dir=trained.cache)
    job = Job(spec=trained.run(loss).spec(), output=trained.store.root, place=place, localisations=specs(trained, loss))
    assert execute(job, events.append), events
    return events


@pytest.fixture(scope="module", params=["pml", "p2p"])
def scored(request: pytest.FixtureRequest, trained: Trained) -> tuple[Trained, RunFolder, list[Localisation]]:
    score(trained, request.param)
    run = trained.run(request.param)
    return trained, run, run.localisations()


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a run but those that say who looked at it last."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("claim-")]
    return {path: path.read_bytes() for path in files}


def brute_force(true: np.ndarray, points: np.ndarray, radius: float) -> int:
    """Size of a maximum matching, by an assignment that counts pairs within the radius."""
    if not len(true) or not len(points):
        return 0
    near = cdist(true, points) <= radius
    rows, columns = linear_sum_assignment(near, maximize=True)
    return int(near[rows, columns].sum())


def test_every_score_follows_from_the_stored_points(scored: tuple[Trained, RunFolder, list[Localisation]]) -> None:
    """Points and heads are those of the image files: the annotation is read as the user wrote it."""
    trained, run, measured = scored
    dataset = trained.dataset()
    heads = {e.id: dataset.read_annotation(e).points for e in dataset.entries("test")}
    assert len(measured) == len(LOCALIZERS[run.spec().loss])
    for one in measured:
        rows = run.points(one.localisation)
        assert set(rows["id"]) == set(heads)
        for radius, name in ((4.0, "4px"), (20.0, "20px")):
            hits = sum(brute_force(heads[row.id], np.reshape(row.points, (-1, 2)), radius) for row in rows.itertuples())
            found = one.scores[name]
            points, people = int(rows["predicted"].sum()), sum(map(len, heads.values()))
            assert (found["tp"], found["fp"], found["fn"]) == (hits, points - hits, people - hits)
            if points:
                assert found["precision"] == pytest.approx(hits / points)
            assert found["f1"] == pytest.approx(2 * hits / (points + people))
        error = np.abs(rows["predicted"] - rows["true"]).mean()
        assert one.counts["mae"] == pytest.approx(error)


def test_points_are_those_of_the_predictor_at_the_stored_size(
    scored: tuple[Trained, RunFolder, list[Localisation]],
) -> None:
    """The same network, by the way that `benchmark predict` takes, and the localizer called directly."""
    trained, run, measured = scored
    predictor, dataset = Predictor(run), trained.dataset()
    entry = dataset.entries("test")[0]
    found = predictor.image(dataset.read_image(entry), entry.id)
    assert found.scale != (1.0, 1.0)
    for one in measured:
        row = run.points(one.localisation).set_index("id").loc[entry.id]
        points, scores = np.reshape(row["points"], (-1, 2)), np.asarray(row["scores"])
        assert len(points) == row["predicted"] == len(scores)
        assert (np.diff(scores) <= 0).all()
        if one.threshold is not None:
            assert (scores >= np.float32(one.threshold)).all()
        if run.spec().loss == "pml":
            field = localizers.Field(found.stride, found.size, found.density)
            params = {**one.localisation.params}
            if one.threshold is not None:
                params["threshold"] = one.threshold
            expected = localizers.build(one.localisation.localizer, **params)(field).points / np.array(found.scale)
            np.testing.assert_allclose(points, expected, atol=1e-3)


def test_the_threshold_is_the_best_on_val_and_no_other_split(
    scored: tuple[Trained, RunFolder, list[Localisation]],
) -> None:
    trained, run, measured = scored
    if run.spec().loss == "p2p":
        pytest.skip("checked on densities")
    dataset, predictor = trained.dataset(), Predictor(run)
    for one in measured:
        if one.threshold_from != "val":
            continue
        localizer = localizers.build(one.localisation.localizer, **one.localisation.params)
        images = []
        for entry in dataset.entries("val"):
            found = predictor.image(dataset.read_image(entry), entry.id)
            located = localizer.candidates(localizers.Field(found.stride, found.size, found.density))
            images.append(
                (dataset.read_annotation(entry).points, located.points / np.array(found.scale), located.scores)
            )
        f1 = {}
        for threshold in sorted({float(np.float32(s)) for *_, scores in images for s in scores}):
            kept = [(t, p[s.astype(np.float32) >= threshold]) for t, p, s in images]
            hits = sum(brute_force(t, p, 20.0) for t, p in kept)
            f1[threshold] = 2 * hits / sum(len(t) + len(p) for t, p in kept)
        assert one.localisation.main == "20px"
        assert one.threshold in f1
        assert f1[one.threshold] == pytest.approx(max(f1.values()))


def test_where_thresholds_come_from(scored: tuple[Trained, RunFolder, list[Localisation]]) -> None:
    _, run, measured = scored
    said = {(m.localisation.localizer, m.localisation.params.get("rule")): m.threshold_from for m in measured}
    if run.spec().loss == "p2p":
        assert said == {("proposals", None): "val"}
    else:
        assert said == {("lm", "gl"): "val", ("lm", "fidtm"): "given", ("otm", None): "none"}
    for one in measured:
        curve = run.curve(one.localisation)
        splits = {"val", "test"} if one.threshold_from == "val" else {"test"}
        assert set(curve["split"]) <= splits
        assert len(curve) or not one.scores["20px"]["tp"]
        assert curve["recall"].between(0, 1).all()


def test_scoring_trains_nothing_and_is_done_once(trained: Trained) -> None:
    score(trained, "pml")
    run = trained.run("pml")
    before = contents(run.path)
    assert score(trained, "pml") == [{"event": "done"}]
    assert contents(run.path) == before


def test_store_frames_agree_with_the_files(scored: tuple[Trained, RunFolder, list[Localisation]]) -> None:
    trained, run, measured = scored
    frame = trained.store.localisations([run.run_id])
    assert len(frame) == 2 * len(measured)
    pairs = frame[["run_id", "eval_id"]].drop_duplicates().itertuples(index=False, name=None)
    hits = trained.store.hits(pairs, ["20px", "999px"])
    sums = hits.groupby("eval_id")["tp"].sum()
    for row in frame[frame["radius"] == "20px"].itertuples():
        assert sums[row.eval_id] == row.tp
    assert frame.groupby("eval_id")["main"].sum().eq(1).all()


def test_outside_heads_are_no_heads(trained: Trained, tmp_path: Path) -> None:
    dataset = trained.dataset()
    (first, *_) = dataset.entries("test")
    assert first.annotation is not None
    truth = stored_heads(dataset, "test")[first.id]
    assert truth.size == (100, 100)
    assert ((truth.heads.points >= 0) & (truth.heads.points <= 100)).all()


def test_two_processes_agree(trained: Trained) -> None:
    """OT-M draws its start: the seed is part of what is measured, so that scores do not depend on what ran before."""
    run = trained.run("pml")
    score(trained, "pml")
    (before,) = [m for m in run.localisations() if m.localisation.localizer == "otm"]
    (run.path / "eval" / before.localisation.eval_id / "localisation.json").unlink()
    torch.rand(3)
    score(trained, "pml")
    (after,) = [m for m in run.localisations() if m.localisation.localizer == "otm"]
    assert after.scores == before.scores


@pytest.mark.parametrize("loss", ["pml", "p2p"])
def test_batches_of_images_have_the_scores_of_single_ones(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """As on a GPU; batches may round otherwise, the order of the rows is the same."""
    score(trained, loss)
    run, sizes = trained.copy(tmp_path, loss), []
    shutil.rmtree(run.path / "eval")
    whole = counter.predict
    monkeypatch.setattr(counter, "predict", lambda model, batch: sizes.append(len(batch.ids)) or whole(model, batch))
    monkeypatch.setitem(build.EVALUATION_PIXELS, "cpu", 3 * 96 * 96)
    place = Place(data_root=trained.root, cache_dir=trained.cache)
    wanted = specs(trained, loss)
    job = Job(spec=run.spec(), output=tmp_path / "runs", place=place, localisations=wanted)
    assert execute(job, lambda event: None)
    assert max(sizes) >= 3
    for spec in wanted:
        single, batched = trained.run(loss).points(spec), run.points(spec)
        assert single["id"].tolist() == batched["id"].tolist()
        assert single["predicted"].tolist() == batched["predicted"].tolist()
        for name in ("points", "scores"):
            left, right = (np.concatenate(frame[name].to_list()) for frame in (single, batched))
            np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-3 if name == "points" else 1e-6)
    pd.testing.assert_frame_equal(
        run.images(EvaluationSpec()).drop(columns="mass"),
        trained.run(loss).images(EvaluationSpec()).drop(columns="mass"),
        check_exact=False,
        rtol=1e-4,
    )


def test_one_localizer_that_fails_loses_no_other(trained: Trained, tmp_path: Path) -> None:
    """A folder has no head boxes: sigma_l cannot be scored; the reason is kept, and the run is no less done."""
    run = trained.copy(tmp_path)
    place = Place(data_root=trained.root, cache_dir=trained.cache)
    (good,) = specs(trained, "pml", ("4",))[:1]
    (bad,) = specs(trained, "pml", ("sigma_l",))[:1]
    job = Job(spec=run.spec(), output=tmp_path / "runs", place=place, localisations=(bad, good))
    events: list[dict[str, object]] = []
    assert not execute(job, events.append)
    assert "sigma_l needs" in str(events[-1]["reason"])
    made = [m.localisation for m in run.localisations()]
    assert good in made
    assert bad not in made
    assert run.state() == "done"
    assert run.has_failure()
    assert execute(job.model_copy(update={"localisations": (good,)}), events.append)
    assert not run.has_failure()


def test_without_weights_nothing_is_trained_again(trained: Trained, tmp_path: Path) -> None:
    """As after an import: the record stays as it is, and the reason is said."""
    run = trained.copy(tmp_path)
    run.weights("val").unlink()
    record = (run.path / "record.json").read_bytes()
    place = Place(data_root=trained.root, cache_dir=trained.cache)
    job = Job(spec=run.spec(), output=tmp_path / "runs", place=place, localisations=specs(trained, "pml", ("6",)))
    events: list[dict[str, object]] = []
    assert not execute(job, events.append)
    assert "model_val.safetensors is missing" in str(events[-1]["reason"])
    assert (run.path / "record.json").read_bytes() == record


def test_game_of_points_is_that_of_counted_blocks(trained: Trained) -> None:
    run = trained.run("pml")
    score(trained, "pml")
    for one in run.localisations():
        rows = run.points(one.localisation)
        errors = []
        for row in rows.itertuples():
            counted = [
                np.histogram2d(*np.reshape(values, (-1, 2)).T, bins=2, range=[[0, row.width], [0, row.height]])[0]
                for values in (row.points, row.heads)
            ]
            errors.append(np.abs(counted[0] - counted[1]).sum())
        assert one.counts["game1"] == pytest.approx(np.mean(errors))


def test_a_range_has_hits_at_each_radius_and_pairs_at_the_main_one(trained: Trained, tmp_path: Path) -> None:
    run, dataset = trained.copy(tmp_path), trained.dataset()
    place = Place(data_root=trained.root, cache_dir=trained.cache)
    (spec,) = specs(trained, "pml", ("3", "1:12"))[:1]
    assert (spec.radii, spec.main) == (("3px", "1:12"), "3px")
    assert execute(
        Job(spec=run.spec(), output=tmp_path / "runs", place=place, localisations=(spec,)), lambda event: None
    )
    one = run.localisation(spec.eval_id)
    assert set(one.scores) == {f"{px}px" for px in range(1, 13)}
    rows = run.points(one.localisation)
    heads = {e.id: dataset.read_annotation(e).points for e in dataset.entries("test")}
    for px in (1, 3, 7, 12):
        hits = [brute_force(heads[row.id], np.reshape(row.points, (-1, 2)), px) for row in rows.itertuples()]
        assert rows[f"tp_{px}px"].tolist() == hits
        assert one.scores[f"{px}px"]["tp"] == sum(hits)
    assert [name for name in rows if name.startswith("match_")] == ["match_3px"]
    assert one.scores["3px"]["ap"] is not None
    assert set(run.curve(one.localisation)["radius"]) == {"3px"}
