"""Fields: gradients against finite differences, targets against the algebra, and what is said against the maps."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import losses
from benchmark.explain.fields import NEAR, SIDE, STILL, Field, build, fields, nearest, proposals, read, target_of
from benchmark.explain.part import figures
from benchmark.explain.scenes import SCENES, Scene, guess, synthetic
from benchmark.explain.tables import seen as tables_seen
from benchmark.names import parse_choice
from reports.plots_maps import BELOW, above, digits

NAMES = (*losses.names(), "pml[count_norm=l2]", "pml[divergence=kl]", "pml[variant=official]")
SCENE = synthetic("three-heads", 8)
GUESSES = [guess(SCENE, name) for name in ("under", "right", "over", "blurred", "shifted")]


@pytest.fixture(scope="module")
def found() -> dict[tuple[str, str], Field]:
    every = fields(map(parse_choice, NAMES), SCENE, GUESSES)
    return {(field.loss, field.guess.name): field for field in every}


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_differences(name: str, found: dict[tuple[str, str], Field]) -> None:
    """At a few cells, of a prediction that is at no loss's kink."""
    loss = build(parse_choice(name))
    if not loss.exact_gradient:
        pytest.skip("this loss holds quantities constant: its gradient is no derivative of its value")
    field, density, target = found[name, "under"], torch.from_numpy(GUESSES[0].density), target_of(SCENE)
    step = 1e-6
    for row, column in ((4, 4), (5, 11), (11, 8)):
        values = []
        for sign in (1, -1):
            moved = density.clone()
            if loss.reads == "density":
                moved[row, column] += sign * step
                prediction = read(loss, SCENE, moved)[1]
            else:
                logits = torch.logit(moved.clamp(1e-6, 1 - 1e-6))
                logits[row, column] += sign * step
                prediction = proposals(SCENE, logits.flatten())
            values.append(float(loss(prediction, target)["loss"]))
        slope = (values[0] - values[1]) / (2 * step)
        assert field.gradient[row, column] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_dm_count_moves_downhill(found: dict[tuple[str, str], Field]) -> None:
    """Its gradient holds the potentials constant; a small step along it lowers the loss all the same."""
    loss, field = build(parse_choice("dm_count")), found["dm_count", "blurred"]
    density = torch.from_numpy(field.guess.density)
    lower = (density - 1e-7 * torch.from_numpy(field.gradient)).clamp(min=0)
    value = float(loss(read(loss, SCENE, lower)[1], target_of(SCENE))["loss"])
    assert value < field.value


def tau(field: Field, norm: str) -> np.ndarray:
    """tau_j = n_j / |s_j - 1| or n_j of the head that each cell is nearest to."""
    owner, _ = nearest(SCENE)
    cells = np.bincount(owner.ravel())
    return (cells / (np.abs(field.counts - 1) if norm == "l1" else 1))[owner]


@pytest.mark.parametrize("guessed", ["under", "over", "blurred"])
def test_targets_are_one_proximal_step_away(guessed: str, found: dict[tuple[str, str], Field]) -> None:
    for name, norm in (("pml", "l1"), ("pml[count_norm=l2]", "l2")):
        field = found[name, guessed]
        assert field.target is not None
        assert field.target_counts == pytest.approx(np.ones(3), abs=1e-9)
        step = tau(field, norm) * (field.read - field.target)
        assert step == pytest.approx(field.gradient, rel=1e-6, abs=1e-6)
    l2 = found["l2", guessed]
    assert 2 * (l2.read - l2.target) == pytest.approx(l2.gradient, abs=1e-12)
    kl = found["pml[divergence=kl]", guessed]
    there = kl.read > 0
    assert (1 - kl.target[there] / kl.read[there]) == pytest.approx(kl.gradient[there], abs=2e-2)  # 0.001 in eta


def test_a_right_count_leaves_l1_pml_and_dm_count_where_they_are(found: dict[tuple[str, str], Field]) -> None:
    for name in ("pml", "dm_count"):
        seen = found[name, "right"].seen
        assert seen.same
        assert seen.change == 0
        assert any("is the prediction itself" in text for text in found[name, "right"].sentences)
    assert found["l2", "right"].seen.same
    assert found["pml", "right"].seen.kinked
    assert not found["pml[count_norm=l2]", "right"].seen.same
    assert not found["pml[count_norm=l2]", "right"].seen.kinked


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
@pytest.mark.parametrize("scene", SCENES)
def test_l2_rests_at_the_right_prediction_whatever_its_rounding(scene: str, stride: int) -> None:
    """Its target is the Gaussians themselves: the prediction differs by what its masses were rounded by."""
    at = synthetic(scene, stride)
    right = guess(at, "right")
    (field,) = fields([parse_choice("l2")], at, [right])
    assert field.seen.change == pytest.approx(right.rounding, abs=1e-12)
    assert field.seen.same
    assert field.short.startswith("no push anywhere;")
    assert field.short.endswith(", the prediction itself")
    assert any("itself, but for the rounding of its masses (largest difference" in text for text in field.sentences)
    (table,) = tables_seen([field])
    assert table.rows[0].cells[-1].text == "= a"


def test_what_differs_by_more_than_rounding_is_another_target() -> None:
    """A millionth of a person moved between two cells, sixteen units of rounding."""
    right, moved = GUESSES[1], GUESSES[1].density.copy()
    moved[np.unravel_index(moved.argmax(), moved.shape)] -= 1e-6
    moved[0, 0] += 1e-6
    (field,) = fields([parse_choice("l2")], SCENE, [right._replace(density=moved)])
    assert field.seen.change == pytest.approx(1e-6, abs=2 * right.rounding)
    assert not field.seen.same
    assert not any("itself" in text for text in (field.short, *field.sentences))


def test_words_agree_with_the_table(found: dict[tuple[str, str], Field]) -> None:
    """Not pushed is what a table rounds to no cell, near heads, elsewhere and over all."""
    told = set()
    for field in found.values():
        seen, way = field.seen, field.short.partition(";")[0].removesuffix(" (at a kink)")
        near, _, far = way.partition(" near heads, ")
        shares = {near: (seen.up_near, seen.down_near), far.removesuffix(" elsewhere"): (seen.up_far, seen.down_far)}
        if not far:
            shares = {way.removesuffix(" everywhere"): (seen.up, seen.down)}
        for said, (up, down) in shares.items():
            idle = said in ("not pushed", "no push anywhere")
            told.add(said)
            assert idle == (up + down <= 0.005 + 1e-12), (field.loss, field.guess.name)
            assert (said == "mostly not pushed") == (0.005 + 1e-12 < up + down <= 0.25), (field.loss, field.guess.name)
            if said in ("up", "down"):
                assert f"{up if said == 'up' else down:.0%}" == "100%"
            if idle:
                assert f"{up:.0%} {down:.0%}" == "0% 0%"
    assert {"up", "down", "mostly down", "both ways", "mostly not pushed", "no push anywhere"} <= told
    assert ", mostly not pushed elsewhere" in found["l2", "under"].short
    (table,) = tables_seen([found["l2", "under"]])
    assert table.rows[0].cells[2].text not in ("0 %", "–")


def test_only_dm_count_is_pushed_where_its_target_is_the_prediction(found: dict[tuple[str, str], Field]) -> None:
    """Its target is s^-1 a times the heads: the prediction's shape, whatever the transport plan says."""
    told = {key for key, field in found.items() if STILL in field.sentences}
    assert told == {("dm_count", "right"), ("dm_count", "blurred"), ("dm_count", "shifted")}  # the count is right
    for key in told:
        assert np.abs(found[key].gradient).max() > 0
        assert "limit tau to infinity" in found[key].short


def test_a_kink_says_that_its_side_is_rounding(found: dict[tuple[str, str], Field]) -> None:
    for field in found.values():
        assert (SIDE in " ".join(field.sentences)) == field.seen.kinked
    (table,) = tables_seen([found["pml", "right"], found["l2", "right"]])
    first, second = (row.cells[-1] for row in table.rows)
    assert "which side is rounding" in first.notes[0]
    assert not second.notes


def test_one_threshold_of_what_is_below_zero(found: dict[tuple[str, str], Field]) -> None:
    """Words, numbers and colours tell of the same targets."""
    told = 0
    for field in found.values():
        if field.target is None or field.seen.same:
            continue
        below = -float(field.target.clip(max=0).sum()) > BELOW
        told += below
        (table,) = tables_seen([field])
        assert ("partly negative" in field.short) == below
        assert any("negative in places" in text for text in field.sentences) == below
        assert (table.rows[0].cells[5].text != "0.00") == below
        assert (above(field.target).min() < 0) == below
    small = {key for key, field in found.items() if 0 < field.seen.negative <= BELOW}
    assert told
    assert small


def test_heads_without_a_cell_are_told_of() -> None:
    points = np.array([[20.0, 20.0], [20.5, 20.0], [20.9, 20.0], [90.0, 90.0]])  # two of the first three own nothing
    scene: Scene = SCENE._replace(points=points)
    (field,) = fields([parse_choice("pml")], scene, [guess(scene, "under")])
    assert field.seen.without == 4 - len(np.unique(nearest(scene)[0])) > 0
    assert field.seen.target_count == pytest.approx(4 - field.seen.without, abs=1e-6)
    assert any(f"That is {field.seen.without} fewer than the heads" in text for text in field.sentences)


def test_what_is_seen_is_in_the_maps(found: dict[tuple[str, str], Field]) -> None:
    _, distance = nearest(SCENE)
    close = distance <= NEAR
    for field in found.values():
        seen = field.seen
        assert field.counts.sum() == pytest.approx(field.total)
        assert 0 <= seen.up + seen.down <= 1 + 1e-12
        shares = close.mean() * seen.up_near + (~close).mean() * seen.up_far
        assert shares == pytest.approx(seen.up)
        assert seen.near == pytest.approx(field.read[close].sum() / field.read.sum())
        if field.target is not None:
            assert seen.target_count == pytest.approx(field.target.sum())
            assert seen.negative == pytest.approx(-field.target[field.target < 0].sum(), abs=1e-15)
            said = re.search(r"The target sums to (\S+) for 3 heads", " ".join(field.sentences))
            assert said
            assert float(said[1]) == pytest.approx(field.target.sum(), abs=0.005)
    assert found["l2", "under"].seen.up_near == 1
    assert found["pml", "over"].seen.one_sign == 3
    assert found["pml", "over"].seen.down == 1
    assert found["pml", "over"].short.startswith("down everywhere")
    assert "partly negative" in found["pml", "over"].short
    assert found["l2", "right"].short.startswith("no push anywhere")


@pytest.mark.parametrize("name", NAMES)
def test_words_do_not_depend_on_what_else_is_drawn(name: str, found: dict[tuple[str, str], Field]) -> None:
    for one in GUESSES:
        (alone,) = fields([parse_choice(name)], SCENE, [one])
        together = found[name, one.name]
        assert (alone.short, alone.sentences) == (together.short, together.sentences)
        assert repr(alone.seen) == repr(together.seen)  # NaN is no number's equal


def test_rounding_is_no_push() -> None:
    """The L2 loss on its own target to the last bits, drawn alone: its largest gradient is rounding."""
    loss, rng = build(parse_choice("l2")), np.random.default_rng(1)
    (asked,) = loss.targets(read(loss, SCENE, torch.from_numpy(GUESSES[0].density))[1], target_of(SCENE))
    assert asked is not None
    at = GUESSES[1]._replace(density=asked.numpy() * (1 + 1e-15 * rng.standard_normal(asked.shape)))
    (field,) = fields([parse_choice("l2")], SCENE, [at])
    assert 0 < np.abs(field.gradient).max() < 1e-12
    assert field.short.startswith("no push anywhere;")
    assert "0 % of the cells are pushed up (more people wanted), 0 % down" in field.sentences[0]


def test_a_smooth_loss_at_rest_in_a_crowd_has_no_kink() -> None:
    """All its cells are pushed apart by a little less and a little more, by a thousandth of a push."""
    y, x = np.mgrid[4:128:10, 4:128:10]
    crowd = SCENE._replace(points=np.stack([x.ravel(), y.ravel()], axis=1).astype(float))
    right = guess(crowd, "right")
    (smooth,) = fields([parse_choice("l2")], crowd, [right])
    assert not smooth.seen.kinked
    few = crowd._replace(points=crowd.points[::24] + 0.5)
    (kinked,) = fields([parse_choice("pml")], few, [guess(few, "right")._replace(density=_one_each(few))])
    assert kinked.seen.kinked


def _one_each(scene: Scene) -> np.ndarray:
    """One person on the cells of each head, spread evenly."""
    owner, _ = nearest(scene)
    return (1 / np.bincount(owner.ravel()))[owner]


def test_point_losses_read_one_proposal_a_cell(found: dict[tuple[str, str], Field]) -> None:
    field = found["p2p", "right"]
    assert field.reads == "points"
    assert field.read.sum() == pytest.approx(3, abs=1e-3)
    assert field.read.min() == pytest.approx(1e-6)  # as probabilities, a logit being finite
    assert sorted(field.target.ravel())[-4:] == [0, 1, 1, 1]
    assert (field.gradient[field.target == 1] < 0).all()  # the matched ones are to become people
    assert (field.gradient[field.target == 0] > 0).all()


def test_a_figure_says_that_proposals_are_pushed_in_logits(found: dict[tuple[str, str], Field]) -> None:
    for name, said in (("p2p", True), ("l2", False)):
        field = found[name, "under"]
        (plot,) = figures(SCENE, [field])
        texts = [text.get_text() for text in plot.figure.texts]
        assert ("in logits" in texts) == said
        assert ("Point losses read a proposal in every cell" in plot.caption) == said
        assert f"scale ±{digits(float(np.abs(field.gradient).max()))}" in texts


def test_rounding_is_not_drawn_as_a_push(found: dict[tuple[str, str], Field]) -> None:
    """A row that pushes no cell has the scale of half the people; beside a prediction that is pushed, its own."""
    rest, under = found["l2", "right"], found["l2", "under"]
    (plot,) = figures(SCENE, [rest])
    (row,) = plot.data.to_dict("records")
    assert row["largest_gradient"] < 1e-6
    assert row["scale"] == pytest.approx(np.abs(under.gradient).max())
    assert f"scale ±{digits(row['scale'])}" in [text.get_text() for text in plot.figure.texts]
    assert "where its row pushes no cell, that of half the people at every head" in plot.caption
    (plot,) = figures(SCENE, [rest, found["l2", "blurred"]])
    assert set(plot.data["scale"]) == {np.abs(found["l2", "blurred"].gradient).max()}


def test_unknown_losses_are_suggested() -> None:
    with pytest.raises(ValueError, match="Did you mean pml"):
        fields([parse_choice("pmll")], SCENE, GUESSES)
