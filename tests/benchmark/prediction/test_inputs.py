"""What `benchmark predict` is given: runs by id, folder or weights; photos with every orientation; folders."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from benchmark.prediction.inputs import Clip, Source, checkpoint, named, read_upright
from benchmark.prediction.video import Video
from results.store import Store, StoreError
from runners.data.reading import DataError
from tests.reports.fake_store import add_run, fake_spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "runs")
    add_run(store, fake_spec(), images=1)
    folder = store.run(fake_spec().run_id)
    for selection in ("val", "last", "test_oracle"):
        folder.weights(selection).write_bytes(b"weights")
    return store


@pytest.mark.parametrize("selection", [None, "val", "last"])
def test_a_run_is_named_by_its_id_or_folder(
    store: Store, selection: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = fake_spec().run_id
    place = store.run(id).path
    monkeypatch.chdir(place.parent)
    for word in (id, id[:4], str(place), f"{place}/", id + "/", f"./{id}", f"../runs/{id}"):
        folder, found = checkpoint(word, store.root, selection)
        assert (folder.run_id, folder.path.resolve(), found) == (id, place.resolve(), selection or "val")
    monkeypatch.chdir(place)
    assert checkpoint(".", store.root, None)[0].run_id == id


@pytest.mark.parametrize("selection", ["val", "last", "test_oracle"])
def test_a_weights_file_says_whose_weights_they_are(store: Store, selection: str) -> None:
    file = store.run(fake_spec().run_id).weights(selection)
    folder, found = checkpoint(str(file), Path("elsewhere"), None)
    assert (folder.run_id, found) == (fake_spec().run_id, selection)
    if selection != "test_oracle":
        assert checkpoint(str(file), Path("elsewhere"), selection)[1] == selection
    with pytest.raises(ValueError, match="leave --select out"):
        checkpoint(str(file), Path("elsewhere"), "last" if selection == "val" else "val")


def test_what_is_no_run_is_said_with_what_may_be_meant(store: Store, tmp_path: Path) -> None:
    id = fake_spec().run_id
    folder = store.run(id).path
    wrong = id[:3] + ("0" if id[3] != "0" else "1") + id[4:]
    cases = {
        wrong: (StoreError, f"0 runs in .* begin with '{wrong}'; expected one. Did you mean {id}"),
        str(store.root / wrong): (ValueError, f"no such run or weights file. Did you mean {id}"),
        str(folder / "model_vla.safetensors"): (ValueError, "no such weights file. Did you mean model_val.safetensors"),
        str(store.root): (ValueError, "is a store of runs; name one of its runs"),
        str(tmp_path): (ValueError, "is no run: it has no spec.json"),
        str(folder / "spec.json"): (ValueError, "is no weights file of a run; those are named"),
        str(tmp_path / "epoch_3.pth"): (ValueError, "no such weights file"),
    }
    for word, (kind, message) in cases.items():
        with pytest.raises(kind, match=message):
            checkpoint(word, store.root, None)
    alone = tmp_path / "model_val.safetensors"
    alone.write_bytes(b"weights")
    with pytest.raises(ValueError, match="no spec.json beside it"):
        checkpoint(str(alone), store.root, None)


@pytest.mark.parametrize("turn", range(10))
def test_photos_are_turned_as_pillow_turns_them(tmp_path: Path, turn: int) -> None:
    image = Image.fromarray(np.random.default_rng(turn).integers(0, 256, (7, 5, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    found = read_upright(tmp_path / "a.png")
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    (source,) = named([tmp_path / "a.png"], as_stored=True)
    assert isinstance(source, Source)
    np.testing.assert_array_equal(source.read(), np.asarray(image))


def test_videos_are_told_from_images_by_their_ending(tmp_path: Path) -> None:
    for name in ("b.MP4", "c.avi", "a10.png", "a9.png"):
        (tmp_path / name).touch()
    found = named([tmp_path / "b.MP4", tmp_path, tmp_path / "c.avi"])
    assert [item.id for item in found] == ["b", "a9", "a10", "c"]
    assert [isinstance(item, Clip) for item in found] == [True, False, False, True]
    for name in ("a10.png", "a9.png"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match="holds no images directly in it.*videos are named one by one, as .*b.MP4"):
        named([tmp_path])


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.mp4"):
        os.mkfifo(tmp_path / name)
    (image, clip) = named([tmp_path / "a.jpg", tmp_path / "a.mp4"])
    assert isinstance(image, Source)
    with pytest.raises(DataError, match=r"a\.jpg: is a named pipe, not a regular file"):
        image.read()
    with pytest.raises(DataError, match=r"a\.mp4: is a named pipe, not a regular file"):
        Video(Path(clip.path))
