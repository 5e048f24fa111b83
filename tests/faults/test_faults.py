"""Whatever happens to a run, the one that is finished in the end has the bits of one that nothing happened to.

`pytest tests/faults --fault-trials 300 -s` makes more trials than the suite's few, prints what happened in each, and in
the end a table of the losses.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import losses
from results.spec import EvaluationSpec
from runners.job import Job, Place
from tests.faults import trial
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import planned

Undisturbed = Callable[[str, int], tuple[Job, float]]


def make_job(data: Path, output: Path, loss: str, workers: int) -> Job:
    backbone = "mobilenetv2" if losses.load(loss).reads == "points" else "tiny"
    evaluations = (EvaluationSpec(), EvaluationSpec(selection="last"))
    place = Place(data_root=data, cache_dir=data.parent / f"cache_{output.name}", workers=workers)
    return Job(spec=planned(data, loss, backbones=[backbone]).spec, output=output, place=place, evaluations=evaluations)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Runs that nothing happened to, one for each loss, and how long they took."""
    base = tmp_path_factory.mktemp("undisturbed")
    data = crowd_folder(base / "crowd")
    known: dict[str, tuple[Job, float]] = {}

    def find(loss: str, workers: int) -> tuple[Job, float]:
        if loss not in known:
            job = make_job(data, base / "runs", loss, workers=0)
            began = time.monotonic()
            assert trial.finish(job) == 1
            known[loss] = job, time.monotonic() - began
        return known[loss]

    return find


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        count = metafunc.config.getoption("--fault-trials")
        metafunc.parametrize("number", range(count))


def test_a_disturbed_run_ends_with_the_same_bits(
    number: int, undisturbed: Undisturbed, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(f"fault trial {number}")
    names = losses.names()
    loss, workers = names[number % len(names)], int(rng.random() < 0.25)
    calm, seconds = undisturbed(loss, workers)
    data = tmp_path / "crowd"
    assert calm.place.data_root is not None
    shutil.copytree(calm.place.data_root, data)
    job = make_job(data, tmp_path / "runs", loss, workers)
    attacked = trial.Trial(job, trial.folder_of(job), seconds, rng, data)
    told = [rng.choice(trial.FAULTS)(attacked) for _ in range(rng.randint(1, 3))]
    record_property("loss", loss)
    record_property("faults", dict(Counter(kind for each in told for kind in each.kinds)))
    print(f"\ntrial {number}, {loss}, {workers} workers: {'; '.join(each.line for each in told)}")
    assert trial.finish(job) == 1, told
    assert trial.differences(attacked.folder, trial.folder_of(calm)) == [], told
    left = [path.name for path in attacked.folder.path.rglob("*.pth")]
    assert left == [], told
