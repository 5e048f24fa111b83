"""Files know whose they are: one that lies in another run's folder is refused, whatever its check sum says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from results.spec import EvaluationSpec
from results.store import Store, StoreError
from tests.results.made_up import fake_spec, fake_store
from tests.results.unsealed import edit

SPEC = EvaluationSpec(selection="val")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fake_store(tmp_path / "runs", zoo=("pml", "bl"), seeds=(0,), images=9)


def two(store: Store) -> tuple[Path, Path]:
    """The folders of two runs."""
    first, second = (store.run(fake_spec(loss, 0).run_id).path for loss in ("pml", "bl"))
    return first, second


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_sound_store_has_no_damage(store: Store) -> None:
    for run in store.runs():
        run.check()


@pytest.mark.parametrize("file", ["spec.json", "record.json", "history.jsonl", "metrics.json"])
def test_a_file_of_another_run_is_refused(store: Store, file: str) -> None:
    mine, other = two(store)
    (name,) = (name for name in files(mine) if Path(name).name == file)
    shutil.copy(other / name, mine / name)
    with pytest.raises(StoreError, match=file):
        store.run(mine.name).check()
    store.run(other.name).check()


@pytest.mark.parametrize("file", ["record.json", "metrics.json"])
def test_one_of_an_older_version_is_known_by_its_run(store: Store, file: str) -> None:
    mine, other = two(store)
    (name,) = (name for name in files(mine) if Path(name).name == file)
    shutil.copy(other / name, mine / name)
    edit(mine / name)
    with pytest.raises(StoreError, match=f"was written as {other.name} and is the file of another run"):
        store.run(mine.name).check()


def test_rows_of_another_run_are_refused_and_the_others_are_read(store: Store) -> None:
    mine, other = two(store)
    (name,) = (name for name in files(mine) if name.endswith("images.parquet"))
    eval_id = Path(name).parent.name
    shutil.copy(other / name, mine / name)
    with pytest.raises(StoreError, match=rf"images.parquet was written as {other.name}/eval/"):
        store.run(mine.name).images(eval_id)
    problems: list[str] = []
    rows = store.images([(mine.name, eval_id), (other.name, eval_id)], problems=problems)
    assert set(rows["run_id"]) == {other.name}
    assert len(problems) == 1


def test_a_measurement_in_the_place_of_another_is_refused(store: Store) -> None:
    """The weights that another rule selected."""
    mine, _ = two(store)
    run = store.run(mine.name)
    first = run.evaluations()[0]
    last = first.model_copy(update={"evaluation": EvaluationSpec(selection="last")})
    run.add_evaluation(last, run.images(first.evaluation))
    run.check()
    folders = [mine / "eval" / each.evaluation.eval_id for each in (first, last)]
    for name in ("metrics.json", "images.parquet"):
        shutil.copy(folders[0] / name, folders[1] / name)
    with pytest.raises(StoreError, match="is the file of another run or measurement"):
        run.check()
    with pytest.raises(StoreError, match="is the file of another run or measurement"):
        run.images(last.evaluation)


@pytest.mark.parametrize("damage", ["removed", "cut", "longer"])
def test_tables_of_another_size_are_noticed_without_reading_them(store: Store, damage: str) -> None:
    mine, _ = two(store)
    (name,) = (name for name in files(mine) if name.endswith("images.parquet"))
    whole = (mine / name).read_bytes()
    if damage == "removed":
        (mine / name).unlink()
    else:
        (mine / name).write_bytes(whole[:-1] if damage == "cut" else whole + b"x")
    with pytest.raises(StoreError, match=f"images.parquet is damaged: expected {len(whole)} bytes, found "):
        store.run(mine.name).check()


def test_a_history_that_is_gone_is_noticed(store: Store) -> None:
    mine, _ = two(store)
    (mine / "history.jsonl").unlink()
    with pytest.raises(StoreError, match=r"history.jsonl is missing or empty; copy it again"):
        store.run(mine.name).check()


def test_a_specification_that_is_gone_comes_with_advice(store: Store) -> None:
    mine, _ = two(store)
    (mine / "spec.json").unlink()
    with pytest.raises(StoreError, match=r"spec.json is missing; copy it again, or remove its folder to make it again"):
        store.run(mine.name).spec()


@pytest.mark.parametrize("file", ["spec.json", "record.json", "history.jsonl", "metrics.json", "images.parquet"])
def test_a_named_pipe_is_not_waited_at(store: Store, file: str) -> None:
    mine, _ = two(store)
    (name,) = (name for name in files(mine) if Path(name).name == file)
    (mine / name).unlink()
    os.mkfifo(mine / name)
    run = store.run(mine.name)
    with pytest.raises(StoreError, match=f"{file} (is a named pipe|is missing|is damaged)"):
        run.check()
    if file == "images.parquet":
        with pytest.raises(StoreError, match="is missing"):
            run.images(Path(name).parent.name)
