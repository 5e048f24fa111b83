"""Label sensitivity: exact zeros, invariance, finite differences, known answers, and growth with the level."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import losses
from losses.base import CrowdLoss, Prediction, Sample, Target
from runners import sensitivity
from runners.data.noise import parse
from runners.data.transforms import TrainCrops
from runners.sensitivity import CONFIDENCE, MEASURES, informed, measure, sample_crops, summary, uninformed
from tests.runners.test_transforms import Memory, crowd

NOISES = [parse(text) for text in ("none", "uniform-px:2", "uniform-px:12", "missing:0.4", "duplicate:0.4")]
SCALE_FREE = ("gradient_shift", "count_push", "rest", "preference_lost")


def build(name: str) -> CrowdLoss:
    return losses.build(name, **({"solver": "stabilised"} if name == "dm_count" else {}))


def groups(images: int, count: int = 20, side: int = 128) -> Memory:
    """People in a group of 10 pixels' width, on blank images: an even density is far from the truth."""
    rng = np.random.default_rng(0)
    points = [np.clip(rng.normal(rng.uniform(45, 83, 2), 10, (count, 2)), 0, side - 1) for _ in range(images)]
    return Memory([np.zeros((side, side, 3), dtype=np.uint8)] * images, points)


@pytest.fixture(scope="module")
def crops() -> list[sensitivity.Crop]:
    return sample_crops(crowd([(96, 128)] * 6, count=30), NOISES, crop=64, count=6)


class Scaled(CrowdLoss):
    """Another loss times a number, plus a term of the labels alone."""

    def __init__(self, inner: CrowdLoss, factor: float) -> None:
        super().__init__()
        self.inner, self.factor, self.reads = inner, factor, inner.reads

    def forward(self, prediction: Prediction, target: Target) -> dict[str, torch.Tensor]:
        extra = sum(float(points.sum()) for points in target.points)
        return {"loss": self.factor * self.inner(prediction, target)["loss"] + extra}


@pytest.mark.parametrize("name", losses.names())
def test_clean_labels_shift_nothing_and_scale_cancels(name: str, crops: list[sensitivity.Crop]) -> None:
    loss = build(name)
    rows = measure({"plain": loss, "scaled": Scaled(loss, 37.0)}, crops)
    clean = rows[(rows["noise"] == "none") & (rows["loss"] == "plain")]
    assert len(clean) == 6
    for column in ("value_change", "gradient_change", "count_change", "preference_change"):
        assert (clean[column] == 0).all()
    found = summary(rows).set_index(["loss", "noise", "measure"])["value"]
    for noise in map(str, NOISES):
        for one in SCALE_FREE:
            assert found["scaled", noise, one] == pytest.approx(
                found["plain", noise, one], rel=1e-6, abs=1e-9, nan_ok=True
            )
        assert abs(found["plain", noise, "count_push"]) <= found["plain", noise, "gradient_shift"] + 1e-12
    assert found["plain", "uniform-px:12", "gradient_shift"] > 0


def test_shifts_grow_with_the_level() -> None:
    noises = [parse(f"uniform-px:{level}") for level in (1, 4, 16)]
    crops = sample_crops(groups(12), noises, crop=128, count=12)
    found = summary(measure({name: build(name) for name in losses.names()}, crops))
    for name, part in found[found["measure"] == "preference_lost"].groupby("loss"):
        assert part["value"].is_monotonic_increasing, name
    for name in ("l2", "noisecc", "p2p"):  # without kinks at the truth, or with few
        part = found[(found["measure"] == "gradient_shift") & (found["loss"] == name)]
        assert part["value"].is_monotonic_increasing, name


def test_count_push_has_the_sign_of_the_labels(crops: list[sensitivity.Crop]) -> None:
    rows = summary(measure({name: build(name) for name in ("l2", "bl", "p2p", "pml", "gl")}, crops))
    pushed = rows[rows["measure"] == "count_push"].set_index(["loss", "noise"])["value"]
    for name in ("l2", "bl", "p2p", "pml", "gl"):
        assert pushed[name, "missing:0.4"] < 0 < pushed[name, "duplicate:0.4"]


class Squares(CrowdLoss):
    """(sum of the density - number of heads)^2: all is known by hand."""

    def image_terms(self, sample: Sample) -> dict[str, torch.Tensor]:
        """One term."""
        return {"square": (sample.density.sum() - len(sample.points)).square()}


def test_a_loss_of_the_count_alone() -> None:
    """At the truth its gradient is 2 (n - n') in every cell; displacement within the crop changes nothing."""
    clean = Target([torch.rand(10, 2) * 60 + 2], (64, 64))
    noisy = {name: Target([torch.rand(n, 2) * 60], (64, 64)) for name, n in (("moved", 10), ("fewer", 7))}
    rows = measure({"count": Squares()}, [sensitivity.Crop("a", clean, noisy)]).set_index("noise")
    assert rows.loc["moved", "value_change"] == pytest.approx(0, abs=1e-9)
    assert rows.loc["fewer", "value_change"] == pytest.approx(9)
    assert rows.loc["fewer", "gradient_change"] == pytest.approx(2 * 3 * 8)  # 64 cells
    assert rows.loc["fewer", "count_change"] == pytest.approx(-2 * 3 * 8)


def test_gradients_are_derivatives(crops: list[sensitivity.Crop]) -> None:
    loss, wrong = build("noisecc"), crops[0].noisy["uniform-px:12"]
    best = informed(loss, crops[0].clean)
    _, gradient = sensitivity._score(loss, best, wrong)
    way = torch.rand_like(best.density)
    step = 1e-5
    ahead, behind = (
        sensitivity._score(loss, best._replace(density=best.density + sign * step * way), wrong)[0] for sign in (1, -1)
    )
    assert float((gradient * way).sum()) == pytest.approx((ahead - behind) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("sigma", [4.0, 8.0, None])
def test_the_true_density_is_one_unit_a_head(sigma: float | None) -> None:
    target = Target([torch.tensor([[20.0, 28.0], [44.0, 12.0], [1.0, 63.0]])], (64, 64))
    best = informed(build("pml"), target, sigma=sigma).density
    assert float(best.sum()) == pytest.approx(3)
    if sigma is None:
        assert best[0, 0, 3, 2] == best[0, 0, 1, 5] == best[0, 0, 7, 0] == 1
    alone = informed(build("pml"), Target([torch.tensor([[132.0, 132.0]])], (256, 256)), sigma=8.0).density[0, 0]
    cell = np.diff(stats.norm.cdf([128, 136], 132, 8)).item()
    assert float(alone[16, 16]) == pytest.approx(cell**2, rel=1e-6)
    assert float(uninformed(build("pml"), target).density.std()) == 0
    assert float(uninformed(build("pml"), target).density.sum()) == pytest.approx(3)


def test_proposals_lie_on_the_heads_and_add_up_to_the_count() -> None:
    points = torch.tensor([[20.3, 28.1], [20.9, 28.4], [50.0, 9.0]])
    best, flat = (make(build("p2p"), Target([points], (64, 64))) for make in (informed, uninformed))
    person = best.logits[0].softmax(-1)[:, 1]
    sure = person > 0.5
    assert sure.sum() == 3
    torch.testing.assert_close(person[sure], torch.full((3,), CONFIDENCE, dtype=torch.float64))
    assert float(torch.cdist(best.points[0][sure], points.double()).amin(0).max()) < 1e-12
    for prediction in (best, flat):
        assert float(prediction.logits[0].softmax(-1)[:, 1].sum()) == pytest.approx(3)


def test_all_noises_see_the_same_crops_as_training_cuts_them() -> None:
    images = crowd([(96, 128)] * 4, count=30)
    first = sample_crops(images, NOISES, crop=64, count=8)
    again = sample_crops(images, NOISES[2:3], crop=64, count=8)
    assert [crop.id for crop in first] == [crop.id for crop in again]
    assert sorted(crop.id for crop in first) == sorted([*images.ids] * 2)  # several of an image where there are few
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one.clean.points[0], other.clean.points[0])
        torch.testing.assert_close(one.noisy["uniform-px:12"].points[0], other.noisy["uniform-px:12"].points[0])
        torch.testing.assert_close(one.noisy["none"].points[0], one.clean.points[0])
        assert len(one.clean.points[0])
    assert sample_crops(images, NOISES, count=1)[0].clean.image_size == (96, 96)  # what fits, in whole cells


def test_the_seed_of_the_noise_is_that_of_a_run() -> None:
    images, noise = crowd([(96, 128)] * 4, count=30), parse("uniform-px:12")
    for seed in (0, 5):
        found = sample_crops(images, [noise], crop=64, count=4, seed=seed)
        trained = TrainCrops(images, crop=64, scale=(1.0, 1.0), flip=0.0, seed=0, noise=noise, noise_seed=seed)
        wanted = {tuple(np.sort(trained[key].points.ravel()).tolist()) for key in range(4 * sensitivity.TRIES)}
        for one in found:
            assert tuple(np.sort(one.noisy["uniform-px:12"].points[0].numpy().ravel()).tolist()) in wanted
    first, other = (sample_crops(images, [noise], crop=64, count=4, seed=seed) for seed in (0, 5))
    for one, two in zip(first, other, strict=True):
        torch.testing.assert_close(one.clean.points[0], two.clean.points[0])
        a, b = one.noisy["uniform-px:12"].points[0], two.noisy["uniform-px:12"].points[0]
        assert a.shape != b.shape or not torch.allclose(a, b)


def test_nobody_is_an_error() -> None:
    empty = Memory([np.zeros((64, 64, 3), dtype=np.uint8)], [np.zeros((0, 2))])
    with pytest.raises(ValueError, match="no head in any"):
        sample_crops(empty, NOISES, crop=32)
    with pytest.raises(ValueError, match="at least 1"):
        sample_crops(crowd([(64, 64)]), NOISES, count=0)


def test_crops_of_a_few_cells_are_refused() -> None:
    images = crowd([(64, 64)] * 3)
    with pytest.raises(ValueError, match="crop is 31 px; expected at least 4 cells of 8 px, 32 px"):
        sample_crops(images, NOISES, crop=31)
    with pytest.raises(ValueError, match="images of the split allow crops of 64 px"):
        sample_crops(images, NOISES, stride=32)
    assert sample_crops(images, NOISES, crop=32)


def test_the_summary_is_a_ratio_of_sums_with_a_bootstrap_error() -> None:
    rng = np.random.default_rng(0)
    rows = measure({"count": Squares()}, sample_crops(crowd([(64, 64)] * 3), NOISES[:1], crop=32, count=3)).head(0)
    made = rows.reindex(range(40)).assign(loss="a", noise="b", id=[str(i) for i in range(40)])
    for column in {column for pair in MEASURES.values() for column in pair}:
        made[column] = rng.uniform(1, 2, 40)
    found = summary(made).set_index("measure").loc["gradient_shift"]
    above, below = made["gradient_change"].to_numpy(), made["gradient_scale"].to_numpy()
    assert found["value"] == pytest.approx(above.sum() / below.sum())
    delta = (above - found["value"] * below).std(ddof=1) / below.mean() / math.sqrt(40)  # the delta method
    assert found["se"] == pytest.approx(delta, rel=0.1)
    assert found["low"] < found["value"] < found["high"]


def test_a_loss_that_does_not_prefer_the_truth_has_no_number() -> None:
    class Contrary(Squares):
        """Rewards what is uneven the less."""

        def image_terms(self, sample: Sample) -> dict[str, torch.Tensor]:
            return {"contrary": sample.density.square().sum()}

    found = summary(measure({"c": Contrary()}, sample_crops(crowd([(64, 64)] * 3), NOISES[1:2], crop=32, count=3)))
    assert math.isnan(found.set_index("measure").loc["preference_lost", "value"])
