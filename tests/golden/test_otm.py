"""OT-M's official variant against the authors' code: final points, rounds and last moves of every golden case.

Files are `otm_<case>.npz`: `density`, `init` (initial points as (row, col), pixels), and what the code made of them.
Errors are in pixels. Only float64 is offered: the code's float32 moves points by up to 0.2 px.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runners.localizers.otm import OTMResult, otm
from tests.golden.conftest import BUNDLED, folder

TOLERANCE = 1e-6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "otm_file" in metafunc.fixturenames:
        paths = sorted(folder(metafunc.config).glob("otm_*.npz"))
        metafunc.parametrize("otm_file", paths, ids=[path.stem for path in paths])


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return found, json.loads(str(found["meta"]))


def run(arrays: dict[str, Any], meta: dict[str, Any]) -> OTMResult:
    hp = meta["hp"]
    return otm(
        arrays["density"][0, 0].astype(np.float64),
        meta["stride"],
        init=arrays["init"][:, ::-1],
        variant="official",
        rounds=hp["max_itern"],
        blur=hp["blur"],
        variance=1 / hp["cost_factor"],
        scaling=hp["ot_scaling"],
    )


def test_agrees_with_the_authors_code(otm_file: Path, record_property) -> None:
    arrays, meta = read(otm_file)
    found, expected = run(arrays, meta), arrays["extra_out_f64"][:, ::-1]
    assert found.points.shape == expected.shape
    assert found.iterations == int(arrays["extra_iters_f64"])
    error = float(np.abs(found.points - expected).max(initial=0.0))
    entry = {"loss": "otm (px)", "precision": "float64", "case": meta["name"], "kind": "value", "name": "points"}
    record_property("golden", entry | {"error": error, "tolerance": TOLERANCE})
    assert error <= TOLERANCE
    np.testing.assert_allclose(found.last_move, arrays["extra_last_move_f64"], atol=TOLERANCE)


def test_cases_are_bundled() -> None:
    assert len(list(BUNDLED.glob("otm_*.npz"))) >= 10


def test_a_wrong_parameter_would_be_noticed() -> None:
    """The harness itself: a slightly different entropy must show."""
    arrays, meta = read(BUNDLED / "otm_sparse.npz")
    meta["hp"]["blur"] *= 1.001
    assert np.abs(run(arrays, meta).points - arrays["extra_out_f64"][:, ::-1]).max() > 10 * TOLERANCE
