"""Where the tests find what the repository does not carry: golden values and real data. Absent, those tests skip."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: one test process a core, each with one thread

import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", help="folder of golden <loss>_<case>.npz files (or set CROWD_GOLDEN)")
    parser.addoption("--shared", help="folder with data/ and weights/ of real images (or set CROWD_SHARED)")
    parser.addoption("--cluster", action="store_true", help="also start a Ray cluster, and use the Slurm that is up")
    parser.addoption("--fault-trials", type=int, default=8, help="trials of tests/faults (default: 8)")
    parser.addoption("--fuzz-inputs", type=int, default=200, help="inputs for each target of tests/fuzz (default: 200)")
    parser.addoption("--fuzz-seed", type=int, default=0, help="seed of tests/fuzz (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """Imports the engine in one process before several test processes do; see `runners.engines.local`."""
    if not hasattr(config, "workerinput"):
        importlib.import_module("mmengine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what starts clusters, unless it is asked for."""
    if not config.getoption("--cluster"):
        for item in items:
            if item.get_closest_marker("cluster"):
                item.add_marker(pytest.mark.skip(reason="starts or needs a cluster: pass --cluster"))


def outside(config: pytest.Config, option: str, variable: str, default: Path) -> Path | None:
    """The folder that an option, an environment variable or a default beside the repository names."""
    chosen = config.getoption(option) or os.environ.get(variable)
    if chosen and not Path(chosen).is_dir():
        raise pytest.UsageError(f"{option} / {variable} names {chosen}, which is no folder")
    return Path(chosen) if chosen else (default if default.is_dir() else None)


@pytest.fixture(scope="session")
def shared_dir(pytestconfig: pytest.Config) -> Path:
    found = outside(pytestconfig, "--shared", "CROWD_SHARED", ROOT.parent / "shared")
    if found is None:
        pytest.skip("needs real data: pass --shared PATH or set CROWD_SHARED")
    return found


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
