"""The claims of `benchmark explain --check` hold, and they fail where the mathematics is wrong."""

from __future__ import annotations

import pytest

from benchmark.explain.check import propositions_table
from benchmark.explain.propositions import propositions
from losses import proximal

MEASURED = {
    "official DM-Count, one head",
    "DM-Count, four heads",
    "BL, one head, too few",
    "BL, one head, too many",
}


@pytest.mark.parametrize("seed", [0, 7])
def test_every_claim_holds(seed: int) -> None:
    found = propositions(seed, 12)
    assert {each.name for each in found if each.holds is None} == MEASURED
    assert [(each.name, each.worst) for each in found if each.holds is False] == []


def test_measurements_are_of_losses_that_differ_from_their_rows() -> None:
    """The zoo's BL counts (1 - q)'a and official DM-Count has reg log b: neither is its row, and neither is far off."""
    for each in propositions(0, 6):
        if each.holds is None:
            assert 0.01 < each.median < 2, each


def test_the_lost_factor_of_the_slides_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proximal.squared

    def printed(density, cost, tau, **kwargs):
        """The slides' limit: the filler without 1 / n."""
        found = right(density, cost, tau, **kwargs)
        return found._replace(target=density - cost / tau + found.filler * len(density))

    monkeypatch.setattr(proximal, "squared", printed)
    failing = {each.name for each in propositions(0, 4) if each.holds is False}
    assert {"envelope theorem", "target against scipy", "tau to infinity", "three views"} <= failing


def test_the_inverted_row_of_the_slides_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proximal.squared_l1

    def printed(density, cost, weight=1.0, **kwargs):
        """The table's p*, with 1 / |s - 1| where |s - 1| is meant."""
        found = right(density, cost, weight, **kwargs)
        step = 1 / (density.sum() - 1).abs() / (weight * len(density))
        return found._replace(target=density - step * (cost - cost.mean()) + (1 - density.sum()) / len(density))

    monkeypatch.setattr(proximal, "squared_l1", printed)
    assert "envelope theorem" in {each.name for each in propositions(0, 4) if each.holds is False}


def test_a_wrong_kl_target_with_the_right_value_is_caught_by_primal_solvers(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proximal.entropic

    def wrong(density, cost, tau):
        """The minimiser with half the cost: positive, and it sums to 1."""
        return right(density, cost, tau)._replace(target=right(density, cost / 2, tau).target)

    monkeypatch.setattr(proximal, "entropic", wrong)
    failing = {each.name for each in propositions(0, 4) if each.holds is False}
    assert {"KL target, simplex", "KL target, affine"} <= failing
    assert "KL value against scipy" not in failing


def test_a_wrong_l1_target_is_caught_by_a_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    right = proximal.squared_l1

    def wrong(density, cost, weight=1.0, **kwargs):
        return right(density, cost, weight, **kwargs)._replace(target=right(density, cost, 2 * weight, **kwargs).target)

    monkeypatch.setattr(proximal, "squared_l1", wrong)
    assert "target against scipy" in {each.name for each in propositions(0, 4) if each.holds is False}


def test_the_table_says_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = propositions(3, 2)
    table = propositions_table(found)
    assert "Every claim holds." in table.caption[0]
    assert len(table.rows) == len(found)
    wrong = propositions_table([found[0]._replace(worst=1.0)])
    assert f"Not true here: {found[0].name}" in wrong.caption[0]
    with pytest.raises(ValueError, match="at least 1"):
        propositions(0, 0)


@pytest.mark.parametrize("row", ["entropic", "squared_l1", "distribution", "squared"])
@pytest.mark.parametrize("part", ["target", "gradient", "filler"])
def test_nothing_that_is_not_a_number_passes(row: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(proximal, row)

    def spoilt(*args, **kwargs):
        found = right(*args, **kwargs)
        return found._replace(**{part: getattr(found, part) * float("nan")})

    monkeypatch.setattr(proximal, row, spoilt)
    assert any(each.holds is False for each in propositions(0, 3))


@pytest.mark.parametrize(("row", "part", "factor"), [
    ("distribution", "target", 2.0), ("distribution", "filler", 0.5), ("squared_l1", "filler", -1.0),
    ("entropic", "filler", 2.0), ("gaussian", "gradient", 2.0), ("gaussian", "value", 2.0),
])  # fmt: skip
def test_a_wrong_factor_is_caught(row: str, part: str, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = getattr(proximal, row)

    def wrong(*args, **kwargs):
        found = right(*args, **kwargs)
        return found._replace(**{part: getattr(found, part) * factor})

    monkeypatch.setattr(proximal, row, wrong)
    assert any(each.holds is False for each in propositions(0, 3))


def test_a_solver_that_does_not_solve_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several heads exact transport is held against POT's own cost."""
    from losses import dm_count

    right = dm_count.balanced

    def lazy(cost, a, b, **kwargs):
        return right(cost, a, b, **(kwargs | {"solver": "stabilised", "reg": 1e6, "iterations": 1}))

    monkeypatch.setattr(dm_count, "balanced", lazy)
    failing = {each.name for each in propositions(0, 3) if each.holds is False}
    assert failing == {"DM-Count, exact OT"}
