"""`benchmark predict`: images, submissions, and what cannot be done."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmark.cli import main
from benchmark.prediction import inputs as predict_inputs
from results.spec import EvaluationSpec
from results.store import Store
from runners.data.datasets.nwpu import Nwpu
from runners.data.reading import read_image
from runners.predict import Predictor
from tests.benchmark.prediction.command_line import predict
from tests.reports.fake_store import add_run, fake_spec
from tests.runners import fake_datasets
from tests.runners.trained import LOSSES, Trained, stored, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory)


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
    monkeypatch.setattr(predict_inputs, "NWPU_IMAGES", 3)
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


def test_a_submission_of_places_is_whole_too(
    trained: Trained, nwpu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "points.txt"
    words = ["--dataset", "nwpu", "--split", "hidden", "--data-root", nwpu, "--points", out]
    assert predict(trained, *words, loss="p2p") == 0
    lines = [line.split(" ") for line in out.read_text().splitlines()]
    assert [line[0] for line in lines] == ["3612", "3610", "3611"]
    predictor = Predictor(trained.run("p2p"))
    for id, number, *coordinates in lines:
        points = predictor.image(read_image(nwpu / "images" / f"{id}.jpg")).stored_points
        assert int(number) == len(points)
        assert list(map(int, coordinates)) == points.round().ravel().tolist()
    out.unlink()
    image = nwpu / "images" / "3610.jpg"
    image.write_bytes(image.read_bytes()[:200])
    assert predict(trained, *words, loss="p2p") == 2
    assert "1 of 3 images are missing" in capsys.readouterr().err
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
    "nowhere": (lambda t, p: [t.ids["pml"], p / "a" / "b.png", "-o", t.store.root], "no such image, video or folder"),
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
    "unknown localizer": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--localizer", "ml", "-o", t.store.root],
        "Did you mean lm?",
    ),
    "parameter": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--localizer", "lm[rul=gl]", "-o", t.store.root],
        "Did you mean rule?",
    ),
    "no threshold": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--localizer", "lm[rule=steerer]", "-o", t.store.root],
        "--localizer 'lm[rule=steerer,threshold=0.3]'",
    ),
    "reads a density": (
        lambda t, p: [t.ids["p2p"], t.root / "test", "--localizer", "otm", "-o", t.store.root],
        "p2p gives proposals: take proposals",
    ),
    "reads proposals": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--localizer", "proposals", "-o", t.store.root],
        "pml gives a density: take lm or otm",
    ),
    "no points": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--points", p / "x.csv", "-o", t.store.root],
        "name a --localizer",
    ),
    "no points for a submission": (
        lambda t, p: [
            t.ids["pml"],
            fake_datasets.write_image(p / "1.png") or p / "1.png",
            "--format",
            "nwpu-points",
            "-o",
            t.store.root,
        ],
        "name a --localizer",
    ),
    "ending of points": (
        lambda t, p: [t.ids["p2p"], t.root / "test", "--points", p / "x.xml", "-o", t.store.root],
        "take .csv, .json, .txt",
    ),
    "ids twice": (
        lambda t, p: [t.ids["p2p"], t.root / "test", t.root / "test", "--points", p / "x.csv", "-o", t.store.root],
        "4 ids come twice",
    ),
    "points over counts": (
        lambda t, p: [t.ids["p2p"], t.root / "test", "--points", p / "x.csv", "--out", p / "x.csv", "-o", t.store.root],
        "both name",
    ),
    "small tile": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--tile", "100", "-o", t.store.root],
        "longer than two margins",
    ),
    "margin alone": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--tile-margin", "64", "-o", t.store.root],
        "--tile 1024",
    ),
    "every": (lambda t, p: [t.ids["pml"], t.root / "test", "--every", "0", "-o", t.store.root], "at least 1"),
    "both rates": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--every", "2", "--fps", "3", "-o", t.store.root],
        "give one of them",
    ),
    "overlay is a file": (
        lambda t, p: [t.ids["pml"], t.root / "test", "--overlay", t.root / "test" / "008.png", "-o", t.store.root],
        "is a file",
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
