"""What every loss promises, whatever it computes. A new loss is held to this by its file name alone."""

from __future__ import annotations

import pytest
import torch

import losses
from losses import Prediction, Target
from tests.contracts.crowd import ALL, DENSITY, PAPER, inputs, one, predict, scatter, score

SIZE = (48, 64)
COUPLED = {("l2", "official"), ("dm_count", "official"), ("gl", "official"), ("noisecc", "official")}
"""Losses whose batch is not the mean of its images, beside p2p, which has its own rule."""

SITUATIONS = {
    "empty": torch.zeros(0, 2),
    "one point": torch.tensor([[20.0, 30.0]]),
    "duplicates": torch.tensor([[20.0, 30.0], [20.0, 30.0], [20.0, 30.0], [50.0, 9.0]]),
    "on the border": torch.tensor([[0.0, 0.0], [64.0, 48.0], [64.0, 0.0], [0.0, 48.0], [32.0, 48.0]]),
    "outside": torch.tensor([[-9.0, 20.0], [70.0, 20.0], [30.0, -5.0], [30.0, 55.0], [30.0, 20.0]]),
    "far outside": torch.tensor([[5000.0, 20.0]]),
    "on cell centres": torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 44.0]]),
    "many in one cell": 20 + torch.rand(40, 2, generator=torch.Generator().manual_seed(3)),
}


def finite(out, gradients) -> None:
    assert torch.isfinite(out["loss"]), out
    for name, gradient in gradients.items():
        assert torch.isfinite(gradient).all(), name


@pytest.mark.parametrize(("name", "variant"), ALL)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_value_and_gradient_are_finite(name: str, variant: str, situation: str) -> None:
    finite(*score(name, variant, predict(name, SIZE), [SITUATIONS[situation]], SIZE))


@pytest.mark.parametrize(("name", "variant"), DENSITY)
@pytest.mark.parametrize("total", [0.0, 1e-6, 1e4])
@pytest.mark.parametrize("count", [0, 6])
def test_any_total_is_finite(name: str, variant: str, total: float, count: int) -> None:
    finite(*score(name, variant, predict(name, SIZE, total=total), [scatter(count, SIZE)], SIZE))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_output_form(name: str, variant: str) -> None:
    out, gradients = score(name, variant, predict(name, SIZE, batch=2), [scatter(6, SIZE), scatter(0, SIZE)], SIZE)
    assert [key for key in out if "loss" in key] == ["loss"]
    assert out["loss"].shape == ()
    assert out["loss"].requires_grad
    terms = {key: value for key, value in out.items() if key != "loss"}
    assert terms
    assert all(key.startswith("term/") and value.shape == () for key, value in terms.items())
    assert not any(value.requires_grad for value in terms.values())
    torch.testing.assert_close(sum(terms.values()), out["loss"].detach())
    assert gradients


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_empty_images_have_the_same_terms(name: str, variant: str) -> None:
    with_people, _ = score(name, variant, predict(name, SIZE), [scatter(6, SIZE)], SIZE)
    without, _ = score(name, variant, predict(name, SIZE), [scatter(0, SIZE)], SIZE)
    assert list(with_people) == list(without)


@pytest.mark.parametrize(("name", "variant"), DENSITY)
def test_an_empty_image_wants_no_mass(name: str, variant: str) -> None:
    """More mass costs more; no mass is a minimum."""
    costs = [
        score(name, variant, predict(name, SIZE, total=total), [scatter(0, SIZE)], SIZE)[0]["loss"].item()
        for total in (0.0, 0.5, 2.0)
    ]
    assert costs[0] < costs[1] < costs[2]


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_batch_and_singles(name: str, variant: str) -> None:
    """A batch is the mean of its images, or couples them: no third way, and never by accident."""
    points = [scatter(7, SIZE, torch.float64), scatter(0, SIZE, torch.float64), scatter(3, SIZE, torch.float64, 5)]
    prediction = predict(name, SIZE, batch=3, dtype=torch.float64)
    whole, gradients = score(name, variant, prediction, points, SIZE)
    singles = [score(name, variant, one(prediction, b), [points[b]], SIZE) for b in range(3)]
    mean = torch.stack([out["loss"] for out, _ in singles]).mean()
    same = bool(torch.isclose(whole["loss"], mean, rtol=1e-6))
    for key, gradient in gradients.items():
        alone = torch.cat([single[key] for _, single in singles]) / 3
        same &= torch.allclose(gradient, alone, rtol=1e-6, atol=1e-9)
    assert same != (name == "p2p" or (name, variant) in COUPLED)


@pytest.mark.parametrize(("name", "variant"), [*PAPER, ("p2p", "official")])
def test_twice_the_same_image_is_the_image(name: str, variant: str) -> None:
    prediction, points = predict(name, SIZE, dtype=torch.float64), scatter(6, SIZE, torch.float64)
    double = prediction._replace(**{key: torch.cat([value, value]) for key, value in inputs(prediction).items()})
    single, _ = score(name, variant, prediction, [points], SIZE)
    pair, _ = score(name, variant, double, [points, points], SIZE)
    torch.testing.assert_close(pair["loss"], single["loss"])


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_order_of_points_does_not_matter(name: str, variant: str) -> None:
    points = scatter(9, SIZE, torch.float64)
    visible = torch.linspace(0.3, 1, 9, dtype=torch.float64)
    loss = losses.build(name, variant=variant)
    prediction = predict(name, SIZE, dtype=torch.float64)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    first = loss(prediction, Target([points], SIZE, visible=[visible]))["loss"]
    second = loss(prediction, Target([points[order]], SIZE, visible=[visible[order]]))["loss"]
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize(("name", "variant"), PAPER)
def test_a_flip_changes_nothing(name: str, variant: str) -> None:
    """Pixel conventions: x -> W - x maps cell centres to cell centres, and the loss to itself."""
    prediction, points = predict(name, SIZE, dtype=torch.float64), scatter(6, SIZE, torch.float64)
    sign, shift = torch.tensor([-1.0, 1.0]), torch.tensor([SIZE[1], 0.0])
    if prediction.density is not None:
        flipped = prediction._replace(density=prediction.density.flip(3))
    else:
        assert prediction.points is not None
        flipped = prediction._replace(points=prediction.points * sign + shift)
    loss = losses.build(name, variant=variant)
    first = loss(prediction, Target([points], SIZE))["loss"]
    second = loss(flipped, Target([points * sign + shift], SIZE))["loss"]
    # ChfL's published grid has one more negative than positive frequency, and so is not quite symmetric.
    torch.testing.assert_close(first, second, rtol=0.02 if name == "chfl" else 1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_inputs_are_left_alone(name: str, variant: str) -> None:
    prediction, points = predict(name, SIZE, batch=2), [scatter(6, SIZE), scatter(2, SIZE)]
    ones, side = [torch.ones(6), torch.ones(2)], torch.tensor([48.0, 48.0])
    target = Target(points, SIZE, visible=ones, short_side=side, spacing=ones)
    tensors = [*inputs(prediction).values(), *points, *ones, side]
    before = [t.detach().clone() for t in tensors]
    losses.build(name, variant=variant)(prediction, target)["loss"].backward()
    for old, new in zip(before, tensors, strict=True):
        assert torch.equal(old, new.detach())


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_precision(name: str, variant: str) -> None:
    """float64 in, float64 out; float32 in, float32 out; and both mean the same."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        points = scatter(6, SIZE, torch.float32).to(dtype)
        prediction = predict(name, SIZE, dtype=torch.float32)
        cast = prediction._replace(**{k: v.detach().to(dtype).requires_grad_() for k, v in inputs(prediction).items()})
        out, gradients = score(name, variant, cast, [points], SIZE)
        assert out["loss"].dtype == dtype
        found[dtype] = out["loss"], gradients
    torch.testing.assert_close(found[torch.float32][0].double(), found[torch.float64][0], rtol=1e-4, atol=1e-5)
    for key, gradient in found[torch.float64][1].items():
        largest = gradient.abs().max().item()
        torch.testing.assert_close(found[torch.float32][1][key].double(), gradient, rtol=0, atol=1e-4 * largest)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_points_of_another_precision_are_cast(name: str, variant: str) -> None:
    out, _ = score(name, variant, predict(name, SIZE), [scatter(6, SIZE, torch.float64)], SIZE)
    assert out["loss"].dtype == torch.float32


@pytest.mark.parametrize(("name", "variant"), ALL)
@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16])
def test_strides(name: str, variant: str, stride: int) -> None:
    size = (12 * stride, 9 * stride)
    finite(*score(name, variant, predict(name, size, stride=stride), [scatter(6, size)], size))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_a_size_that_the_stride_does_not_divide(name: str, variant: str) -> None:
    finite(*score(name, variant, predict(name, (45, 61)), [scatter(6, (45, 61))], (45, 61)))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_twenty_thousand_points(name: str, variant: str) -> None:
    """A crowd of the largest size in the datasets, on a small map."""
    size = (256, 256)
    params = {"iterations": 5} if name == "dm_count" else {}  # 100 rounds are a matter of time, not of size
    finite(*score(name, variant, predict(name, size, stride=32, total=2e4), [scatter(20_000, size)], size, **params))


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_metadata(name: str, variant: str) -> None:
    cls = losses.load(name)
    loss = losses.build(name, variant=variant)
    assert cls.reference
    assert cls.version >= 1
    assert cls.main_weight is not None
    assert losses.build(name, variant=variant, **{cls.main_weight: 0.7}) is not None
    assert loss.official == (variant == "official")
    assert "official" in (cls.__doc__ or ""), "the docstring must name the differences of the official variant"
    assert not list(loss.parameters())


@pytest.mark.parametrize("name", losses.names())
def test_bad_parameters(name: str) -> None:
    cls = losses.load(name)
    assert cls.main_weight is not None
    with pytest.raises(ValueError, match="variant must be one of"):
        losses.build(name, variant="offical")
    with pytest.raises((ValueError, TypeError), match=cls.main_weight):
        losses.build(name, **{cls.main_weight: -1.0})
    with pytest.raises(ValueError, match=cls.main_weight):
        losses.build(name, **{cls.main_weight: float("nan")})
    with pytest.raises(TypeError, match=f"Did you mean {cls.main_weight}"):
        losses.build(name, **{cls.main_weight + "s": 1.0})


def test_the_documented_line() -> None:
    from losses import PML, functional

    density, points = torch.rand(1, 1, 6, 8), [scatter(3, SIZE)]
    alone = PML()(Prediction(stride=8, density=density), Target(points, SIZE))["loss"]
    assert torch.equal(alone, functional.pml(density, points, stride=8))
