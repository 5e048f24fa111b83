"""Our official variants against the authors' code: value, named components and gradient of every golden case."""

from __future__ import annotations

from pathlib import Path

import pytest

import losses
from tests.golden import golden
from tests.golden.conftest import BUNDLED, DTYPES


def test_agrees_with_the_authors_code(golden_file: Path, precision: str, record_property) -> None:
    case = golden.Case(golden_file)
    checks = golden.compare(case, DTYPES[precision])
    for check in checks:
        entry = {"loss": golden.FAMILIES[case.family].loss, "precision": precision, "case": case.meta["name"]}
        record_property("golden", entry | check._asdict())
    wrong = [f"{c.name}: error {c.error:.2e}, allowed {c.tolerance:.0e}" for c in checks if not c.error <= c.tolerance]
    assert not wrong, f"{case.path.name} in {precision}: " + "; ".join(wrong)


def test_no_file_is_skipped(golden_folder: Path) -> None:
    everything = sorted(golden_folder.glob("*.npz"))
    other = [path for path in everything if path.name.startswith(golden.OTHER_FORMATS)]
    cases = golden.files(golden_folder)
    assert cases, f"{golden_folder} holds no golden case"
    assert len(cases) + len(other) == len(everything)
    unknown = [path.name for path in cases if path.stem.partition("_")[0] not in golden.FAMILIES]
    assert not unknown, f"no loss for {unknown}; add a family to tests/golden/golden.py"


def test_every_loss_has_bundled_cases() -> None:
    found = {golden.FAMILIES[golden.Case(path).family].loss for path in golden.files(BUNDLED)}
    assert found == set(losses.names())


def test_every_component_is_compared(golden_folder: Path) -> None:
    for path in golden.files(golden_folder):
        case = golden.Case(path)
        assert set(case.components()) <= set(golden.FAMILIES[case.family].components), path.name


@pytest.mark.parametrize("family", golden.FAMILIES)
def test_a_wrong_loss_would_be_noticed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: an error of 1e-4 in value, components and gradient must show in each of them."""
    paths = [path for path in golden.files(BUNDLED) if path.stem.startswith(f"{family}_")]
    case = golden.Case(min(paths, key=lambda path: path.stat().st_size))
    right = golden.run(case, DTYPES["float64"])
    off = 1 + 1e-4
    wrong = golden.Outcome(
        right.value * off,
        {name: term * off for name, term in right.terms.items()},
        {name: gradient * off for name, gradient in right.gradients.items()},
    )
    monkeypatch.setattr(golden, "run", lambda *_: wrong)
    missed = [c.name for c in golden.compare(case, DTYPES["float64"]) if c.error <= c.tolerance and c.error > 0]
    assert not set(missed) - {"comp_ot_weighted", "comp_wd", "comp_ot_obj_weighted"}
