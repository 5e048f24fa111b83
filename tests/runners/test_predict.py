"""The weights of runs trained here, on images: the counts of their own evaluation, and a command around them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmark import predict as command
from benchmark.cli import main
from benchmark.plan import Planned, plan
from benchmark.predict import Counted, rendered
from benchmark.study import validated
from results.spec import EvaluationSpec
from results.store import RunFolder, Store, StoreError
from runners import build, data
from runners.counter import Found
from runners.data.cache import prepare
from runners.data.datasets.base import CrowdDataset
from runners.data.datasets.nwpu import Nwpu
from runners.data.reading import DataError, read_image
from runners.execute import execute
from runners.job import Job, Place
from runners.predict import MissingWeightsError, Predictor, resize_rule, samples
from tests.reports.fake_store import add_failure, add_run, fake_spec
from tests.runners import fake_datasets
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
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


def predict(trained: Trained, *words: str | Path, loss: str = "pml", store: Path | None = None) -> int:
    fixed = [trained.ids[loss][:6], *map(str, words), "-o", str(store or trained.store.root), "--device", "cpu"]
    return main(["predict", *fixed])


def stored(folder: RunFolder, evaluation: EvaluationSpec = EvaluationSpec()) -> dict[str, float]:  # noqa: B008
    rows = folder.images(evaluation)
    return dict(zip(rows["id"], rows["predicted"], strict=True))


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


def test_people_in_the_padding_do_not_count(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = [[0.0, 0.0], [70.0, 35.0], [20.0, 70.0]], [[70.1, 35.0], [5.0, 70.5], [-0.1, 3.0], [71.0, 71.0]]
    found = Found(None, np.array([*inside, *outside]), 8)
    monkeypatch.setattr("runners.predict.predict", lambda counter, batch: found)
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
    shutil.copy(trained.run("p2p").weights("val"), folder.weights("val"))
    with pytest.raises(StoreError, match="does not fit the run's network"):
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


# ---------------------------------------------------------------------------------------------------------------------
# The command: formats

COUNTED = [
    Counted("0002", "a,b/0002.jpg", 12.00006, None),
    Counted("0010", "0010.png", 1234.5, [[1.5, 2.0]]),
    Counted("[red]x", "x.png", 0.0, []),
]


def text(form: str) -> str:
    return rendered(form, COUNTED, {"bad.png": "no image"}, "3f2a" * 4, "val", fake_spec())


def test_nwpu_lines() -> None:
    assert text("nwpu") == "0002 12.0001\n0010 1234.5000\n[red]x 0.0000\n"


def test_csv_lines() -> None:
    assert text("csv") == 'id,count,path\n0002,12.00006,"a,b/0002.jpg"\n0010,1234.5,0010.png\n[red]x,0.0,x.png\n'


def test_json_object() -> None:
    assert json.loads(text("json")) == {
        "run_id": "3f2a3f2a3f2a3f2a",
        "selection": "val",
        "loss": "pml",
        "backbone": "vgg19",
        "dataset": "ucf_qnrf",
        "images": [
            {"id": "0002", "path": "a,b/0002.jpg", "count": 12.00006},
            {"id": "0010", "path": "0010.png", "count": 1234.5, "points": [[1.5, 2.0]]},
            {"id": "[red]x", "path": "x.png", "count": 0.0, "points": []},
        ],
        "failed": {"bad.png": "no image"},
    }


def test_table_of_eighty_columns() -> None:
    lines = text("table").splitlines()
    assert lines[0] == "pml · vgg19 · ucf_qnrf · run 3f2a3f2a · weights val"
    assert lines[-1] == "3 images, 1246.5 people"
    assert [line.strip("│").replace("│", " ").split() for line in lines[4:7]] == [
        ["0002", "12.0"],
        ["0010", "1234.5"],
        ["[red]x", "0.0"],
    ]
    long = [Counted("n" * 200, "p", 1.0, None)]
    assert max(map(len, rendered("table", long, {}, "3f2a", "val", fake_spec()).splitlines())) <= 80


# ---------------------------------------------------------------------------------------------------------------------
# The command: images


def test_a_folder_and_a_file_without_any_annotation(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    shutil.copytree(trained.root / "test", images, ignore=shutil.ignore_patterns("*.json"))
    (images / "below").mkdir()
    first, *others = sorted(images.glob("*.png"))
    first.rename(tmp_path / first.name)
    assert predict(trained, images, tmp_path / first.name, "--format", "csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["path"] for row in rows] == [*map(str, others), str(tmp_path / first.name)]
    assert {row["id"]: float(row["count"]) for row in rows} == stored(trained.run("pml"))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_split_as_json(trained: Trained, capsys: pytest.CaptureFixture[str], loss: str) -> None:
    words = ["--split", "test", "--data-root", trained.root, "--format", "json", "--select", "last"]
    assert predict(trained, *words, loss=loss) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run_id"], printed["failed"]) == (trained.ids[loss], {})
    last = stored(trained.run(loss), EvaluationSpec(selection="last"))
    assert {image["id"]: image["count"] for image in printed["images"]} == last
    for image in printed["images"]:
        assert image.get("points") is None if loss == "pml" else len(image["points"]) == image["count"]
        assert all(0 <= coordinate <= 100 for point in image.get("points", []) for coordinate in point)


def test_grey_palette_and_transparent_images_and_a_small_one(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    image = Image.fromarray(grey)
    for name, mode in (("a", "L"), ("b", "RGB"), ("c", "RGBA"), ("d", "LA")):
        image.convert(mode).save(tmp_path / f"{name}.png")
    palette = Image.fromarray(grey, "P")
    palette.putpalette([level for level in range(256) for _ in range(3)])
    palette.save(tmp_path / "e.png")
    assert Image.open(tmp_path / "e.png").mode == "P"
    assert predict(trained, tmp_path, "--format", "json") == 0
    counts = [image["count"] for image in json.loads(capsys.readouterr().out)["images"]]
    assert len(counts) == 5
    assert set(counts) == {counts[0]}
    assert counts[0] > 0


def test_a_broken_image_is_named_and_the_others_are_done(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted((trained.root / "test").glob("*.png")):
        shutil.copy(path, tmp_path)
    broken, *whole = sorted(tmp_path.glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("no image")
    out = tmp_path / "counts.json"
    assert predict(trained, tmp_path, "--format", "json", "--out", out) == 1
    printed = capsys.readouterr()
    assert broken.name in printed.err
    assert "text.jpg" in printed.err
    assert f"{len(whole)} of {len(whole) + 2} images" in printed.out
    content = json.loads(out.read_text())
    assert [image["path"] for image in content["images"]] == [*map(str, whole)]
    assert set(content["failed"]) == {str(broken), str(tmp_path / "text.jpg")}


def test_a_prediction_that_is_not_finite_is_named(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.copy(tmp_path)
    weights = load_file(folder.weights("val"))
    save_file({name: value * float("nan") if value.is_floating_point() else value for name, value in weights.items()},
              folder.weights("val"))  # fmt: skip
    image = next((trained.root / "test").glob("*.png"))
    assert predict(trained, image, "--format", "csv", store=tmp_path / "runs") == 1
    printed = capsys.readouterr()
    assert "NaN" in printed.err
    assert printed.out == "id,count,path\n"


def test_a_file_is_replaced_whole_or_not_at_all(trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / "new" / "counts.csv"
    assert predict(trained, trained.root / "test", "--format", "csv", "--out", out) == 0
    before = out.read_text()
    assert len(before.splitlines()) == 1 + len(stored(trained.run("pml")))
    assert predict(trained, trained.root / "test", "--format", "nwpu", "--out", out) == 0
    assert len(out.read_text().splitlines()) == len(before.splitlines()) - 1
    assert list(out.parent.iterdir()) == [out]


def test_images_may_stand_behind_options(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((trained.root / "test").glob("*.png"))
    store = str(trained.store.root)
    assert main(["predict", trained.ids["pml"], "-o", store, str(image), "--format", "csv", "--device", "cpu"]) == 0
    assert str(image) in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["predict", trained.ids["pml"], "-o", store, str(image), "--fromat", "csv"])
    assert "Did you mean --format" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# The command: a submission to NWPU-Crowd


@pytest.fixture
def nwpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An NWPU-Crowd whose hidden part has three images, listed out of order; reading any annotation fails."""
    root = fake_datasets.nwpu(
        tmp_path / "nwpu", {"train": {"0001": 3}, "val": {"0002": 2}, "test": {"3612": 0, "3610": 0, "3611": 0}}
    )

    def refuse(self: Nwpu, entry: Any) -> None:
        raise AssertionError(f"the annotation of {entry.id} was asked for")

    monkeypatch.setattr(Nwpu, "read_annotation", refuse)
    monkeypatch.setattr(command, "NWPU_IMAGES", 3)
    return root


def hidden(root: Path, *more: str | Path) -> list[str | Path]:
    return ["--dataset", "nwpu", "--split", "hidden", "--data-root", root, "--format", "nwpu", *more]


def test_a_submission_has_the_order_of_the_list(
    trained: Trained, nwpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "submission.txt"
    assert predict(trained, *hidden(nwpu, "--out", out)) == 0
    lines = [line.split(" ") for line in out.read_text().splitlines()]
    assert [line[0] for line in lines] == ["3612", "3610", "3611"]
    predictor = Predictor(trained.run("pml"))
    for id, count in lines:
        assert count == f"{predictor.image(read_image(nwpu / 'images' / f'{id}.jpg')).count:.4f}"
    assert "trained on folder, not on nwpu" in capsys.readouterr().err


def test_an_incomplete_submission_is_not_written(
    trained: Trained, nwpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "submission.txt"
    image = nwpu / "images" / "3610.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:200])
    assert predict(trained, *hidden(nwpu, "--out", out)) == 2
    assert "1 of 3 images are missing" in capsys.readouterr().err
    image.unlink()
    assert predict(trained, *hidden(nwpu, "--out", out)) == 2
    assert "1 listed images are missing" in capsys.readouterr().err
    image.write_bytes(content)
    monkeypatch.undo()
    assert predict(trained, *hidden(nwpu, "--out", out)) == 2
    assert "has 1500 images, its list here names 3: 1497 are missing" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/7.png", "a/x7.png"), "1 names are none, the first is 'x7'"),
        (("a/7.png", "b/7.png"), "1 ids come twice, the first is 7"),
        (("a/٣.png",), "1 names are none"),
    ],
)
def test_ids_that_the_server_could_not_understand(
    trained: Trained, tmp_path: Path, names: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        fake_datasets.write_image(tmp_path / name)
    assert predict(trained, *(tmp_path / name for name in names), "--format", "nwpu") == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------------
# The command: what cannot be carried out


def _prefix(trained: Trained, place: Path) -> list[str]:
    store = Store(place / "twice")
    for seed in range(17):  # of seventeen ids two begin alike
        add_run(store, fake_spec(seed=seed), images=1)
    first = [run.run_id[0] for run in store.runs()]
    return [next(letter for letter in first if first.count(letter) > 1), "x.png", "-o", str(store.root)]


BAD: dict[str, tuple[Callable[[Trained, Path], list[Any]], str]] = {
    "unknown run": (lambda t, p: ["zzz", "x.png", "-o", t.store.root], "0 runs in"),
    "no store": (lambda t, p: ["zzz", "x.png", "-o", p / "none"], "0 runs in"),
    "ambiguous prefix": (_prefix, "begin with"),
    "no images": (lambda t, p: [t.ids["pml"], "-o", t.store.root], "name images"),
    "no split": (lambda t, p: [t.ids["pml"], "--dataset", "folder", "-o", t.store.root], "name images"),
    "both": (lambda t, p: [t.ids["pml"], "x.png", "--split", "test", "-o", t.store.root], "not both"),
    "empty folder": (lambda t, p: [t.ids["pml"], p, "-o", t.store.root], "holds no images"),
    "missing file": (lambda t, p: [t.ids["pml"], t.root / "tset", "-o", t.store.root], "Did you mean test?"),
    "nowhere": (lambda t, p: [t.ids["pml"], p / "a" / "b.png", "-o", t.store.root], "no such image or folder"),
    "one missing": (lambda t, p: [t.ids["pml"], t.root / "test", p / "b.png", "-o", t.store.root], "b.png: no such"),
    "unknown split": (
        lambda t, p: [t.ids["pml"], "--split", "hidden", "--data-root", t.root, "-o", t.store.root],
        "no split 'hidden'",
    ),
    "unknown dataset": (
        lambda t, p: [t.ids["pml"], "--dataset", "nwpuu", "--split", "hidden", "-o", t.store.root],
        "Did you mean nwpu?",
    ),
    "no data": (
        lambda t, p: [t.ids["pml"], "--split", "test", "--data-root", p, "-o", t.store.root],
        "folder is not under",
    ),
    "out is a folder": (lambda t, p: [t.ids["pml"], t.root / "test", "--out", p, "-o", t.store.root], "is a folder"),
    "device": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--device", "tpu", "-o", t.store.root],
        "--device must be",
    ),
    "threads": (lambda t, p: [t.ids["pml"], t.root / "test", "--threads", "0", "-o", t.store.root], "positive"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_done_is_one_line_before_any_work(
    trained: Trained, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("an image was predicted")

    monkeypatch.setattr(Predictor, "image", refuse)
    words, message = BAD[name]
    assert main(["predict", *map(str, words(trained, tmp_path))]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_run_without_weights_is_one_line(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.copy(tmp_path)
    image = next((trained.root / "test").glob("*.png"))
    for selection in ("val", "last"):
        folder.weights(selection).write_bytes(b"torn")
    assert predict(trained, image, store=tmp_path / "runs") == 2
    assert "no whole safetensors file" in capsys.readouterr().err
    for selection in ("val", "last"):
        folder.weights(selection).unlink()
    assert predict(trained, image, store=tmp_path / "runs") == 2
    assert "not part of a recorded study" in capsys.readouterr().err
    (folder.path / "record.json").unlink()
    assert predict(trained, image, store=tmp_path / "runs") == 2
    assert "is not finished" in capsys.readouterr().err
