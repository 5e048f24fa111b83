"""`benchmark predict`: points and their thresholds, pictures, upright photos, tiles."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmark.cli import main
from benchmark.names import parse_choice
from benchmark.prediction.command import _threshold_of
from results.schema import Localisation
from results.spec import LOCALISATION_VERSION, EvaluationSpec, LocalisationSpec
from results.store import RunFolder
from runners import data, localizers
from runners.data.reading import read_image
from runners.localizers import Field
from runners.predict import Predictor
from tests.benchmark.prediction.command_line import predict
from tests.runners.trained import Trained, stored, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory)


def test_a_density_gives_points_by_a_localizer(trained: Trained, tmp_path: Path) -> None:
    """The points are those that the localizer finds in the prepared image, in pixels of the file."""
    images = sorted((trained.root / "test").glob("*.png"))
    out = tmp_path / "out.json"
    words = "--localizer", "lm[threshold=0.01]", "--format", "json", "--out", out, "--points", tmp_path / "points.csv"
    assert predict(trained, *images, *words) == 0
    content = json.loads(out.read_text())
    assert content["localizer"] == "lm[threshold=0.01]"
    predictor, lm = Predictor(trained.run("pml")), localizers.build("lm", threshold=0.01)
    for image, path in zip(content["images"], images, strict=True):
        found = predictor.image(read_image(path))
        located = lm(Field(found.stride, (70, 70), density=found.density))
        assert len(located.points) > 0
        np.testing.assert_allclose(image["points"], located.points / 0.7)
        assert image["scores"] == located.scores.tolist()
        assert image["count"] == found.count
    with (tmp_path / "points.csv").open() as file:
        rows = [(row["image"], float(row["x"]), float(row["y"]), float(row["score"])) for row in csv.DictReader(file)]
    assert rows == [
        (image["id"], *point, score)
        for image in content["images"]
        for point, score in zip(image["points"], image["scores"], strict=True)
    ]


def test_proposals_may_be_kept_by_another_threshold(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    image = next((trained.root / "test").glob("*.png"))
    found = {}
    for localizer in ((), ("--localizer", "proposals"), ("--localizer", "proposals[threshold=0.2]")):
        assert predict(trained, image, "--format", "json", *localizer, loss="p2p") == 0
        found[localizer[1:]] = json.loads(capsys.readouterr().out)["images"][0]
    own, same, more = found.values()
    assert len(own["points"]) == own["count"] == same["count"] == more["count"]
    assert sorted(own["points"]) == sorted(same["points"])
    assert sorted(own["scores"], reverse=True) == same["scores"]
    assert min(own["scores"]) >= 0.5
    assert 0.2 <= min(more["scores"]) < 0.5
    assert set(map(tuple, own["points"])) < set(map(tuple, more["points"]))


def _scored(folder: RunFolder, threshold: float | None, **changes: Any) -> None:
    """A measurement of places by lm, as `benchmark run --localizers lm` leaves it."""
    spec = {"localizer": "lm", "params": localizers.defaults("lm"), "version": localizers.load("lm").version}
    spec |= {"radii": ("4px", "8px"), "main": "8px"}
    origin = changes.pop("threshold_from", "val")
    measured = Localisation(
        run_id=folder.run_id, localisation=LocalisationSpec(**(spec | changes)), epoch=1, images=4,
        threshold=threshold, threshold_from=origin, counts={}, scores={}, seconds=0.0,
    )  # fmt: skip
    folder.add_localisation(measured, pd.DataFrame(), pd.DataFrame())


def test_the_threshold_is_the_one_that_was_chosen_on_val(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained.copy(tmp_path)
    image = next((trained.root / "test").glob("*.png"))

    def used(localizer: str, *words: str) -> str:
        if predict(trained, image, "--localizer", localizer, "--format", "json", *words, store=tmp_path / "runs"):
            return capsys.readouterr().err
        return json.loads(capsys.readouterr().out)["localizer"]

    _scored(folder, 0.9, selection="last")
    _scored(folder, 0.8, threshold_from="given")
    _scored(folder, 0.7, params=localizers.defaults("lm") | {"refine": True})
    _scored(folder, 0.6, version=99)
    _scored(folder, 0.5, localizer="otm")
    assert "none was chosen on the validation split" in used("lm")
    assert used("lm[rule=fidtm]") == f"lm[rule=fidtm,threshold={100 / 255}]"
    _scored(folder, 0.021, main="4px")
    assert used("lm") == "lm[threshold=0.021]"
    _scored(folder, 0.022)
    assert used("lm") == used("lm[rule=gl]").replace("rule=gl,", "") == "lm[threshold=0.022]"
    assert used("lm", "--select", "last") == "lm[threshold=0.9]"
    assert used("lm[refine=true]") == "lm[refine=true,threshold=0.7]"
    assert used("lm[threshold=0.01]") == "lm[threshold=0.01]"
    assert used("otm") == "otm"


def test_a_threshold_of_other_metrics_is_not_taken_and_of_several_none_is_guessed(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, spec = trained.copy(tmp_path), trained.run("pml").spec()
    lm = localizers.build("lm")

    def threshold() -> float | None:
        return _threshold_of(folder, parse_choice("lm"), lm, "val")[0]

    _scored(folder, 0.3, metrics=LOCALISATION_VERSION + 1)
    _scored(folder, 0.4, metrics=LOCALISATION_VERSION - 1)
    assert threshold() is None
    _scored(folder, 0.021, main="4px")
    assert threshold() == 0.021
    _scored(folder, 0.021, main="2px", radii=("2px",))  # another radius, the same threshold
    assert threshold() == 0.021
    _scored(folder, 0.5, main="sigma_l", radii=("sigma_l",))
    with pytest.raises(
        ValueError, match=r"several .*: 0\.021 by F1 at 2px, 0\.021 by F1 at 4px, 0\.5 by F1 at sigma_l"
    ):
        threshold()
    image = next((trained.root / "test").glob("*.png"))
    assert predict(trained, image, "--localizer", "lm", store=tmp_path / "runs") == 2
    assert "give one, for instance --localizer 'lm[threshold=0.021]'" in capsys.readouterr().err
    _scored(folder, 0.022)
    assert data.load(spec.dataset).main_radius == "8px"
    assert threshold() == 0.022
    _scored(folder, 0.022, radii=("8px",))
    assert threshold() == 0.022
    _scored(folder, 0.023, radii=("1:9",))
    with pytest.raises(ValueError, match=r"0\.022 by F1 at 8px, 0\.023 by F1 at 8px; give one"):
        threshold()


def test_pictures_lie_beside_and_have_names_of_their_own(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((trained.root / "test").glob("*.png"))[:2]
    (tmp_path / "more").mkdir()
    shutil.copy(second, tmp_path / "more" / first.name)
    folder = tmp_path / "pictures"
    words = "--localizer", "lm[threshold=0.01]", "--overlay", folder
    assert predict(trained, first, tmp_path / "more", *words, "--overlay-format", "png", "--overlay-size", "80") == 0
    assert sorted(file.name for file in folder.iterdir()) == [f"{first.stem}.png", f"{first.stem}_2.png"]
    for file in folder.iterdir():
        with Image.open(file) as picture:
            assert (picture.size, picture.mode) == ((80, 80), "RGB")
    assert predict(trained, first, "--overlay", folder, loss="p2p") == 0
    with Image.open(folder / f"{first.stem}.jpg") as picture:
        assert (picture.size, picture.format) == ((100, 100), "JPEG")
    before = first.read_bytes()
    capsys.readouterr()
    assert predict(trained, first, "--overlay", first.parent, "--overlay-format", "png") == 2
    assert "would replace" in capsys.readouterr().err
    assert first.read_bytes() == before


def test_photos_are_turned_upright_and_images_of_a_split_are_not(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo that is stored on its side counts as the upright one; its points are told in the upright image."""
    upright = Image.open(next((trained.root / "test").glob("*.png"))).crop((0, 0, 90, 60))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)

    def images(*words: str | Path) -> list[dict[str, Any]]:
        assert predict(trained, *words, "--localizer", "lm[threshold=0.01]", "--format", "json") == 0
        return [
            {key: image.get(key) for key in ("count", "points")}
            for image in json.loads(capsys.readouterr().out)["images"]
        ]

    one, other = images(tmp_path / "a.png", tmp_path / "b.png")
    assert one == other
    (stored_one,) = images(tmp_path / "b.png", "--as-stored")
    assert stored_one != one
    shutil.copytree(trained.root, tmp_path / "crowd")
    for file in (tmp_path / "crowd" / "test").glob("*.png"):
        Image.open(file).save(file, exif=exif)
    assert predict(trained, "--split", "test", "--data-root", tmp_path / "crowd", "--format", "csv") == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {row["id"]: float(row["count"]) for row in rows} == stored(trained.run("pml"))


def test_tiles_of_the_command(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The network of these runs sees less than 64 pixels far: tiles change the last bits of the count only."""
    image = tmp_path / "large.png"
    parts = [np.asarray(Image.open(file)) for file in sorted((trained.root / "test").glob("*.png"))]
    Image.fromarray(np.concatenate([np.concatenate(parts * 2, axis=1)] * 6)).save(image)
    counts = []
    for words in ((), ("--tile", "256", "--tile-margin", "64")):
        assert predict(trained, image, "--format", "json", *words) == 0
        counts.append(json.loads(capsys.readouterr().out)["images"][0]["count"])
    assert counts[1] == pytest.approx(counts[0], rel=1e-5)
    assert counts[0] > 10


def test_a_run_is_named_by_its_folder_or_its_weights(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained.run("pml")
    found = {}
    for words in ([folder.path], [folder.weights("val")], [folder.weights("last")]):
        images = [trained.root / "test", "--format", "json", "--device", "cpu"]
        assert main(["predict", *map(str, [*words, *images])]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["run_id"] == folder.run_id
        found[words[0].name] = {image["id"]: image["count"] for image in content["images"]}, content["selection"]
    val, last = stored(folder), stored(folder, EvaluationSpec(selection="last"))
    assert list(found.values()) == [(val, "val"), (val, "val"), (last, "last")]


def test_ctrl_c_keeps_what_was_done(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, real = sorted((trained.root / "test").glob("*.png")), Predictor.image

    def stopping(self: Predictor, image: Any, id: str = "") -> Any:
        if id == images[2].stem:
            raise KeyboardInterrupt
        return real(self, image, id)

    monkeypatch.setattr(Predictor, "image", stopping)
    out = tmp_path / "counts.csv"
    assert predict(trained, *images, "--format", "csv", "--out", out) == 130
    assert len(out.read_text().splitlines()) == 3
    assert f"2 of {len(images)}" in capsys.readouterr().err


def test_an_image_too_large_for_memory_is_named_and_the_others_are_done(
    trained: Trained, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, real = sorted((trained.root / "test").glob("*.png")), Predictor.image

    def scarce(self: Predictor, image: Any, id: str = "") -> Any:
        if id == images[0].stem:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return real(self, image, id)

    monkeypatch.setattr(Predictor, "image", scarce)
    assert predict(trained, *images, "--format", "csv") == 1
    printed = capsys.readouterr()
    assert f"{images[0]}: does not fit into memory; try --tile" in printed.err
    assert len(printed.out.splitlines()) == len(images)
