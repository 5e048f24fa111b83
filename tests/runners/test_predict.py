"""The weights of runs trained here, on images: the counts of their own evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from results.spec import EvaluationSpec
from results.store import Store, StoreError
from runners import build, data, localizers
from runners.counter import POINT_SCORE, Found
from runners.data.cache import prepare
from runners.data.datasets.base import CrowdDataset
from runners.data.reading import DataError, read_image
from runners.job import Place
from runners.predict import MissingWeightsError, Predictor, resize_rule, samples
from tests.reports.fake_store import add_failure, fake_spec
from tests.runners.trained import LOSSES, SCALE, Trained, stored, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory)


# ---------------------------------------------------------------------------------------------------------------------
# Counts


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("selection", "split"), [("val", "test"), ("last", "test"), ("val", "val")])
def test_counts_are_those_of_the_evaluation_to_the_last_bit(
    trained: Trained, loss: str, selection: Any, split: Any
) -> None:
    found = list(Predictor(trained.run(loss), selection).split(trained.dataset(), split))
    counts = {predicted.id: predicted.count for predicted in found}
    assert counts == stored(trained.run(loss), EvaluationSpec(selection=selection, split=split))
    assert min(counts.values()) > 0
    assert len(set(counts.values())) == len(counts) or loss == "p2p"


def test_the_density_is_that_of_the_network_and_the_count_its_mass_in_the_image(trained: Trained) -> None:
    """Computed again without any part of the evaluation: resized, padded, normalised and summed by hand."""
    folder = trained.run("pml")
    network = build.network(folder.spec(), Place(), pretrained=False).eval()
    network.load_state_dict(load_file(folder.weights("val")))
    path = next((trained.root / "test").glob("*.png"))
    with Image.open(path) as image:
        small = np.asarray(image.resize((70, 70), Image.Resampling.BICUBIC))
    side = -(-70 // network.multiple) * network.multiple
    assert side > 70
    canvas = np.full((side, side, 3), (124, 116, 104), np.float64)
    canvas[:70, :70] = small
    normal = (canvas / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        density = network(torch.from_numpy(normal.transpose(2, 0, 1)[None]).float()).density[0, 0].double().numpy()

    found = Predictor(folder).image(read_image(path), "it")
    cells = -(-70 // found.stride)
    assert (found.id, found.size, found.scale, found.stride) == ("it", (70, 70), (0.7, 0.7), side // len(density))
    np.testing.assert_allclose(found.density, density[:cells, :cells], rtol=1e-4, atol=1e-6)
    pixels = np.kron(density / found.stride**2, np.ones((found.stride, found.stride)))
    assert found.count == pytest.approx(pixels[:70, :70].sum(), rel=1e-4)
    assert found.points is None
    assert found.stored_points is None


def test_points_lie_in_the_image_and_are_counted(trained: Trained) -> None:
    predictor = Predictor(trained.run("p2p"))
    image = read_image(next((trained.root / "test").glob("*.png")))[:, :61]
    found = predictor.image(image)
    assert found.size == (70, 43)
    assert found.scale == (43 / 61, 0.7)
    assert found.density is None
    assert found.count == len(found.points) > 0
    assert ((found.points >= 0) & (found.points <= [43, 70])).all()
    np.testing.assert_allclose(found.stored_points[:, 0] * 43 / 61, found.points[:, 0])
    np.testing.assert_allclose(found.stored_points[:, 1] * 0.7, found.points[:, 1])


def test_proposals_have_their_scores_and_localizers_read_them(trained: Trained) -> None:
    predictor = Predictor(trained.run("p2p"))
    found = predictor.image(read_image(next((trained.root / "test").glob("*.png"))))
    assert len(found.proposals) == len(found.scores) > len(found.points)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    np.testing.assert_array_equal(found.points, found.proposals[found.scores >= POINT_SCORE])
    np.testing.assert_array_equal(found.point_scores, found.scores[found.scores >= POINT_SCORE])
    located = found.located(localizers.build("proposals", threshold=0.3))
    assert len(located.points) == (found.scores >= 0.3).sum()
    np.testing.assert_allclose(located.points[0] * 0.7, found.proposals[found.scores.argmax()])


def test_a_density_has_a_field_and_no_scores(trained: Trained) -> None:
    found = Predictor(trained.run("pml")).image(read_image(next((trained.root / "test").glob("*.png"))))
    assert (found.proposals, found.scores, found.point_scores) == (None, None, None)
    assert found.field().size == (70, 70)
    assert found.field().density is found.density
    located = found.located(localizers.build("lm", threshold=0.01))
    assert len(located.points) > 0
    assert ((located.points >= 0) & (located.points <= 100)).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [(70, 70), (300, 71), (257, 412)])
def test_tiles_change_the_last_bits_only_where_the_network_sees_less_than_the_margin(
    trained: Trained, loss: str, size: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = Predictor(trained.run(loss)).prepared(image)
    found = Predictor(trained.run(loss), tile=192, margin=64).prepared(image)
    assert found.count == pytest.approx(whole.count, rel=1e-5)
    for name in ("density", "proposals", "scores"):
        one, other = getattr(found, name), getattr(whole, name)
        if other is None:
            assert one is None
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_tiles_without_a_margin_differ(trained: Trained) -> None:
    image = np.random.default_rng(0).integers(0, 256, (257, 412, 3), dtype=np.uint8)
    whole = Predictor(trained.run("pml")).prepared(image)
    cut = Predictor(trained.run("pml"), tile=128, margin=0).prepared(image)
    assert np.abs(cut.density - whole.density).max() > 1e-4


def test_a_tile_that_would_keep_nothing_is_refused(trained: Trained) -> None:
    with pytest.raises(ValueError, match="longer than two margins"):
        Predictor(trained.run("pml"), tile=256)


def test_people_in_the_padding_do_not_count(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = [[0.0, 0.0], [70.0, 35.0], [20.0, 70.0]], [[70.1, 35.0], [5.0, 70.5], [-0.1, 3.0], [71.0, 71.0]]
    found = Found(None, np.array([*inside, *outside]), 8)
    monkeypatch.setattr("runners.predict.predict", lambda counter, batch: [found])
    predicted = Predictor(trained.run("p2p")).image(np.zeros((100, 100, 3), np.uint8))
    assert predicted.count == 3
    assert predicted.points.tolist() == inside


@pytest.mark.parametrize("name", [name for name in data.names() if name != "synthetic"])
def test_the_rule_is_that_of_the_dataset(trained: Trained, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = data.load(name)
    assert kind.prepared_size is CrowdDataset.prepared_size, "resize_rule must learn how this dataset resizes"
    monkeypatch.setattr(kind, "locate", classmethod(lambda cls, root=None: [trained.root]))
    for params in ({}, {"scale": 0.3}, {"short_max": 300, "long_max": 700, "scale": 0.5}, {"short_min": 0}):
        dataset = data.build(name, **params)
        rule, scale = resize_rule(fake_spec(dataset=name, dataset_params=params))
        for size in ((20, 30), (700, 500), (3000, 2100)):
            assert rule.size(*size, scale) == dataset.prepared_size(*size)


def test_a_predictor_leaves_the_random_stream_alone(trained: Trained) -> None:
    before = torch.get_rng_state()
    Predictor(trained.run("pml"))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
def test_other_arrays_are_refused(trained: Trained, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\]; found"):
        Predictor(trained.run("pml")).image(image)


# ---------------------------------------------------------------------------------------------------------------------
# Runs that cannot predict


def test_weights_that_are_not_there(trained: Trained, tmp_path: Path) -> None:
    folder = trained.copy(tmp_path)
    folder.weights("val").unlink()
    with pytest.raises(MissingWeightsError, match="kept no weights of 'val', but of last"):
        Predictor(folder)
    folder.weights("last").unlink()
    with pytest.raises(MissingWeightsError, match="not part of a recorded study"):
        Predictor(folder)


def test_weights_that_are_torn(trained: Trained, tmp_path: Path) -> None:
    folder = trained.copy(tmp_path)
    file = folder.weights("val")
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:5], b""):
        file.write_bytes(content)
        with pytest.raises(StoreError, match="model_val.safetensors is no whole safetensors file"):
            Predictor(folder)


def test_weights_of_another_network(trained: Trained, tmp_path: Path) -> None:
    folder = trained.copy(tmp_path)
    weights = load_file(folder.weights("val"))
    name, value = next(iter(sorted(weights.items())))
    save_file(weights | {name: torch.zeros(3, *value.shape)}, folder.weights("val"))
    with pytest.raises(StoreError, match=f"in 1 tensors; the first is {name}: found"):
        Predictor(folder)
    foreign = trained.run("p2p").weights("val")
    save_file(load_file(foreign), folder.weights("val"))  # without what says whose they are
    with pytest.raises(StoreError, match="does not fit the run's network"):
        Predictor(folder)
    shutil.copy(foreign, folder.weights("val"))
    with pytest.raises(StoreError, match="is the file of another run"):
        Predictor(folder)


def test_runs_that_are_not_done(trained: Trained, tmp_path: Path) -> None:
    folder = trained.copy(tmp_path)
    (folder.path / "record.json").unlink()
    with pytest.raises(StoreError, match=r"is not finished \(interrupted\)"):
        Predictor(folder)
    store = Store(tmp_path / "runs")
    with pytest.raises(StoreError, match="holds no run"):
        Predictor(store.run("abc"))
    add_failure(store, fake_spec(), reason="the disk is full")
    with pytest.raises(StoreError, match="failed: the disk is full"):
        Predictor(store.run(fake_spec().run_id))


# ---------------------------------------------------------------------------------------------------------------------
# Examples for a report


@pytest.mark.parametrize("loss", LOSSES)
def test_samples_are_the_images_of_the_stored_rows(trained: Trained, tmp_path: Path, loss: str) -> None:
    rows = trained.run(loss).images(EvaluationSpec()).set_index("id")
    examples = samples(trained.run(loss), trained.dataset(), cache_dir=tmp_path / "cache")
    errors = (rows["predicted"] - rows["true"]).abs()
    assert [example.choice for example in examples] == ["best", "median", "worst"]
    assert [errors[example.id] for example in examples] == [errors.min(), sorted(errors)[1], errors.max()]
    assert not (tmp_path / "cache").exists()
    for example in examples:
        points = np.array(json.loads((trained.root / "test" / f"{example.id}.json").read_text())) * SCALE
        np.testing.assert_allclose(example.true_points, points)
        assert (example.true, example.predicted) == (len(points), rows.loc[example.id, "predicted"])
        assert example.image.shape == (70, 70, 3)
        # Two windows a side, [0, 64) and [64, 70]; predicted people in them by brute force.
        points = points.astype(np.float32)
        people = np.histogram2d(points[:, 1], points[:, 0], bins=([0, 64, 70], [0, 64, 70]))[0]
        if loss == "p2p":
            assert example.density is None
            mass = np.histogram2d(*example.points.T[::-1], bins=([0, 64, 70], [0, 64, 70]))[0]
        else:
            assert example.points is None
            pixels = np.kron(example.density / example.stride**2, np.ones((example.stride,) * 2))[:70, :70]
            mass = np.array([[pixels[:64, :64].sum(), pixels[:64, 64:].sum()], [pixels[64:, :64].sum(), 0]])
            mass[1, 1] = pixels[64:, 64:].sum()
        np.testing.assert_allclose(example.window_errors, mass - people, rtol=1e-4, atol=1e-4)


def test_samples_come_from_the_cache_or_decode_only_themselves(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, decoded = trained.dataset(), []
    prepare(dataset, "test", cache_dir=trained.cache)
    read = dataset.read_image
    monkeypatch.setattr(dataset, "read_image", lambda entry: decoded.append(entry.id) or read(entry))
    cached = samples(trained.run("pml"), dataset, ("worst", "best"), cache_dir=trained.cache)
    assert decoded == []
    fresh = samples(trained.run("pml"), dataset, ("worst", "best"), cache_dir=tmp_path)
    assert decoded == [example.id for example in fresh]
    for one, other in zip(cached, fresh, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def test_samples_of_a_changed_dataset_are_refused(trained: Trained, tmp_path: Path) -> None:
    folder = trained.run("pml")
    with pytest.raises(DataError, match="dataset folder; it is not at hand"):
        samples(folder, None)
    with pytest.raises(DataError, match="found synthetic"):
        samples(folder, data.build("synthetic"))
    with pytest.raises(DataError, match="has 100 x 100 pixels"):
        samples(folder, data.build("folder", root=trained.root), cache_dir=tmp_path)
    root = Path(shutil.copytree(trained.root, tmp_path / "crowd"))
    for file in (root / "test").glob("*.json"):
        file.write_text(json.dumps([*json.loads(file.read_text()), [50.0, 50.0]]))
    with pytest.raises(DataError, match="or they stood elsewhere"):
        samples(folder, data.build("folder", root=root, scale=SCALE), cache_dir=tmp_path)
    for file in (root / "test").glob("*.png"):
        file.rename(file.with_stem(f"x{file.stem}"))
        file.with_suffix(".json").rename(file.with_name(f"x{file.stem}.json"))
    with pytest.raises(DataError, match="has no image"):
        samples(folder, data.build("folder", root=root, scale=SCALE), cache_dir=tmp_path)


def test_samples_without_weights_have_their_errors(trained: Trained, tmp_path: Path) -> None:
    folder = trained.copy(tmp_path)
    for selection in ("val", "last"):
        folder.weights(selection).unlink()
    whole = samples(trained.run("pml"), trained.dataset(), cache_dir=tmp_path)
    for bare, full in zip(samples(folder, trained.dataset(), cache_dir=tmp_path), whole, strict=True):
        assert (bare.id, bare.density, bare.points) == (full.id, None, None)
        np.testing.assert_array_equal(bare.window_errors, full.window_errors)
    file = folder.path / "eval" / EvaluationSpec().eval_id / "images.parquet"
    rows = folder.images(EvaluationSpec())
    rows.drop(columns=["mass", "people"]).to_parquet(file)
    for bare, full in zip(samples(folder, trained.dataset(), cache_dir=tmp_path), whole, strict=True):
        assert (bare.id, bare.window_errors) == (full.id, None)
    rows.drop(columns=["mass", "people"]).assign(true=rows["true"] + 1).to_parquet(file)
    with pytest.raises(DataError, match="measured were 70 x 70"):
        samples(folder, trained.dataset(), cache_dir=tmp_path)


def test_samples_choose_among_few_images_and_known_choices(trained: Trained, tmp_path: Path) -> None:
    folder, dataset = trained.copy(tmp_path), trained.dataset()
    file = folder.path / "eval" / EvaluationSpec().eval_id / "images.parquet"
    rows = folder.images(EvaluationSpec())
    rows[:1].to_parquet(file)
    assert [example.choice for example in samples(folder, dataset, cache_dir=tmp_path)] == ["best"]
    rows.assign(predicted=rows["true"] + 1.0)[::-1].to_parquet(file)  # all the same: ties go by id
    ids = [example.id for example in samples(folder, dataset, cache_dir=tmp_path)]
    assert ids == [rows["id"][0], sorted(rows["id"])[(len(rows) - 1) // 2], rows["id"].max()]
    with pytest.raises(ValueError, match="unknown choice 'middle'"):
        samples(folder, dataset, ("middle",))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="no evaluation last-val"):
        samples(folder, dataset, evaluation=EvaluationSpec(selection="last", split="val"))
