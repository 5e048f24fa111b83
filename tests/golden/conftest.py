"""Chooses the folder of golden cases, makes one test per case and precision, and prints the table of worst errors."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT, outside
from tests.golden import golden

BUNDLED = Path(__file__).parent / "cases"
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def folder(config: pytest.Config) -> Path:
    """--golden, CROWD_GOLDEN, the folder beside the repository, or else the cases that come with it."""
    return outside(config, "--golden", "CROWD_GOLDEN", ROOT.parent / "shared" / "golden") or BUNDLED


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" in metafunc.fixturenames:
        paths = golden.files(folder(metafunc.config))
        metafunc.parametrize("golden_file", paths, ids=[path.stem for path in paths])
    if "precision" in metafunc.fixturenames:
        metafunc.parametrize("precision", list(DTYPES))


@pytest.fixture
def golden_folder(pytestconfig: pytest.Config) -> Path:
    return folder(pytestconfig)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The worst error of each loss against its tolerance, from what the tests recorded."""
    worst: dict[tuple[str, str, str], tuple[float, float, float, str]] = {}
    cases: dict[tuple[str, str], set[str]] = defaultdict(set)
    for report in (r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])):
        for _, entry in (p for p in getattr(report, "user_properties", []) if p[0] == "golden"):
            cases[entry["loss"], entry["precision"]].add(entry["case"])
            key = (entry["loss"], entry["precision"], entry["kind"])
            share = entry["error"] / entry["tolerance"]
            candidate = (share, entry["error"], entry["tolerance"], entry["case"])
            worst[key] = max(worst.get(key, (-1.0, 0.0, 0.0, "")), candidate)
    if not worst:
        return
    terminalreporter.section("golden values: worst error / tolerance (case)")
    terminalreporter.write_line(f"{folder(config)}")
    for loss, precision in sorted(cases):
        terminalreporter.write_line(f"{loss:<9} {precision}  {len(cases[loss, precision]):>3} cases")
        for kind in ("value", "component", "gradient"):
            if (loss, precision, kind) in worst:
                _, error, allowed, case = worst[loss, precision, kind]
                terminalreporter.write_line(f"    {kind:<10} {error:.1e} / {allowed:.0e}  ({case})")
