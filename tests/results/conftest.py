from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from results.recorded import export
from results.store import Store
from tests.reports.fake_store import fake_store
from tests.results.made_up import located, measure_places, odd_store


@pytest.fixture(scope="package", autouse=True)
def _unflushed() -> Iterator[None]:
    """Nothing here is about a power cut, and flushing hundreds of files to the disk takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return odd_store(tmp_path / "runs")


@pytest.fixture(scope="package")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store and a study of two runs; tests change copies of it."""
    root = tmp_path_factory.mktemp("small")
    export(fake_store(root / "runs", zoo=("pml", "l2"), seeds=(0,), images=6), root / "study", name="study")
    return root


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small / "study", tmp_path / "copy"))


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path]:
    """Two studies of different runs, and the store of both in `all`."""
    for name, seeds in (("one", (0, 2)), ("two", (1,)), ("all", (0, 1, 2))):
        export(
            fake_store(tmp_path / f"runs_{name}", zoo=("pml", "l2"), seeds=seeds, images=5), tmp_path / name, name=name
        )
    return tmp_path / "one", tmp_path / "two"


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two runs, each with a measurement of places, and its study; tests change copies."""
    root = tmp_path_factory.mktemp("places")
    store = fake_store(root / "runs", zoo=("pml", "l2"), seeds=(0,), images=4)
    for seed, run in enumerate(store.runs()):
        measure_places(store, run.spec(), located(seed, 5, least=3))
    export(store, root / "study", name="study")
    return root


@pytest.fixture
def study(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base / "study", tmp_path / "copy"))
