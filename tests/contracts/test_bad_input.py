"""Wrong input ends in an error that names the tensor, what was found and what was expected."""

from __future__ import annotations

import math

import pytest
import torch

import losses
from losses import Prediction, Target
from tests.contracts.crowd import ALL, inputs, predict, scatter

SIZE = (48, 64)
DENSITY = [name for name in losses.names() if losses.load(name).reads == "density"]
POINTS = [name for name in losses.names() if losses.load(name).reads == "points"]


def fails(
    error: type[Exception], parts: list[str], name: str, prediction: Prediction, target: Target, **params
) -> None:
    with pytest.raises(error) as caught:
        losses.build(name, **params)(prediction, target)
    missing = [part for part in parts if part not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"


@pytest.mark.parametrize("name", DENSITY)
@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (1, 2, 6, 8), (1, 1, 1, 6, 8)])
def test_wrong_rank_of_density(name: str, shape: tuple[int, ...]) -> None:
    prediction = Prediction(8, density=torch.rand(shape))
    fails(
        ValueError,
        ["prediction.density", "(B, 1, h, w)", str(shape)],
        name,
        prediction,
        Target([scatter(2, SIZE)], SIZE),
    )


@pytest.mark.parametrize("name", POINTS)
def test_wrong_rank_of_proposals(name: str) -> None:
    prediction = Prediction(8, points=torch.rand(9, 2), logits=torch.rand(9, 2))
    fails(ValueError, ["(B, Q, 2)", "(9, 2)"], name, prediction, Target([scatter(2, SIZE)], SIZE))


@pytest.mark.parametrize("name", POINTS)
def test_proposals_and_logits_of_different_length(name: str) -> None:
    prediction = Prediction(8, points=torch.rand(1, 9, 2), logits=torch.rand(1, 8, 2))
    fails(ValueError, ["prediction.points", "prediction.logits"], name, prediction, Target([scatter(2, SIZE)], SIZE))


@pytest.mark.parametrize("name", losses.names())
def test_the_other_kind_of_head(name: str) -> None:
    other = predict("p2p" if name in DENSITY else "bl", SIZE)
    fails(TypeError, ["reads prediction.", "NoneType", "head"], name, other, Target([scatter(2, SIZE)], SIZE))


@pytest.mark.parametrize(("name", "variant"), ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_points_that_are_not_finite(name: str, variant: str, bad: float) -> None:
    points = scatter(3, SIZE)
    points[1, 0] = bad
    parts = ["target.points[0]", "1 of 6", "(1, 0)", "finite"]
    fails(ValueError, parts, name, predict(name, SIZE), Target([points], SIZE), variant=variant)


@pytest.mark.parametrize(("name", "variant"), ALL)
def test_prediction_that_is_not_finite(name: str, variant: str) -> None:
    prediction = predict(name, SIZE)
    field = next(iter(inputs(prediction)))
    broken = inputs(prediction)[field].detach().clone()
    broken.flatten()[3] = math.nan
    parts = [f"prediction.{field}", "NaN", "finite"]
    target = Target([scatter(2, SIZE)], SIZE)
    fails(ValueError, parts, name, prediction._replace(**{field: broken}), target, variant=variant)


@pytest.mark.parametrize("name", DENSITY)
def test_negative_density(name: str) -> None:
    density = torch.rand(1, 1, 6, 8)
    density[0, 0, 2, 3] = -0.25
    prediction, target = Prediction(8, density=density), Target([scatter(2, SIZE)], SIZE)
    if losses.load(name).accepts_negative:
        assert torch.isfinite(losses.build(name)(prediction, target)["loss"])
    else:
        fails(ValueError, ["prediction.density", "negative", "-0.25"], name, prediction, target)


def test_only_l2_accepts_negative_densities() -> None:
    assert [name for name in losses.names() if losses.load(name).accepts_negative] == ["l2"]


@pytest.mark.parametrize("name", DENSITY)
def test_a_stride_that_does_not_fit(name: str) -> None:
    prediction = Prediction(4, density=torch.rand(1, 1, 6, 8))
    parts = ["prediction.density", "6 x 8", "stride 4", "12 x 16"]
    fails(ValueError, parts, name, prediction, Target([scatter(2, SIZE)], SIZE))


@pytest.mark.parametrize("name", losses.names())
def test_a_stride_that_is_no_stride(name: str) -> None:
    prediction = predict(name, SIZE)._replace(stride=0)
    fails(ValueError, ["prediction.stride", "found 0"], name, prediction, Target([scatter(2, SIZE)], SIZE))


@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize("field", ["points", "visible", "short_side", "spacing"])
def test_mixed_devices(name: str, field: str) -> None:
    """The meta device stands for an accelerator: it has shapes and a name, but no values."""
    target = Target([scatter(2, SIZE)], SIZE, [torch.ones(2)], torch.tensor([48.0]), [torch.ones(2)])
    there = getattr(target, field)
    there = there.to("meta") if isinstance(there, torch.Tensor) else [t.to("meta") for t in there]
    fails(ValueError, [f"target.{field}", "meta", "cpu"], name, predict(name, SIZE), target._replace(**{field: there}))


@pytest.mark.parametrize("name", losses.names())
def test_wrong_number_of_images(name: str) -> None:
    target = Target([scatter(2, SIZE)], SIZE)
    fails(
        ValueError, ["target.points", "one tensor per image: 2", "found 1"], name, predict(name, SIZE, batch=2), target
    )


@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize(
    ("points", "error", "parts"),
    [
        (torch.rand(3, 3), ValueError, ["target.points[0]", "(N, 2)", "(3, 3)"]),
        (torch.rand(2), ValueError, ["target.points[0]", "(N, 2)", "(2,)"]),
        (torch.ones(3, 2, dtype=torch.long), TypeError, ["target.points[0]", "floating point", "int64"]),
        ([[1.0, 2.0]], TypeError, ["target.points[0]", "tensor", "list"]),
    ],
)
def test_wrong_points(name: str, points, error: type[Exception], parts: list[str]) -> None:
    fails(error, parts, name, predict(name, SIZE), Target([points], SIZE))


@pytest.mark.parametrize("name", losses.names())
def test_points_that_are_no_list(name: str) -> None:
    fails(TypeError, ["target.points", "list", "Tensor"], name, predict(name, SIZE), Target(torch.rand(1, 3, 2), SIZE))


@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"visible": [torch.ones(3)]}, ["target.visible[0]", "3 values", "2 points"]),
        ({"visible": [torch.tensor([0.5, 1.5])]}, ["target.visible[0]", "[0, 1]", "1.5"]),
        ({"spacing": [torch.tensor([-1.0, 4.0])]}, ["target.spacing[0]", "at least 0", "-1"]),
        ({"short_side": torch.tensor([0.0])}, ["target.short_side", "positive", "0"]),
        ({"short_side": torch.tensor([1.0, 2.0])}, ["target.short_side", "(1,)", "(2,)"]),
        ({"image_size": (48.0, 64.0)}, ["target.image_size", "(H, W)", "48.0"]),
    ],
    ids=["visible length", "visible range", "spacing", "short side", "short side shape", "image size"],
)
def test_wrong_extras(name: str, change, parts: list[str]) -> None:
    fails(ValueError, parts, name, predict(name, SIZE), Target([scatter(2, SIZE)], SIZE)._replace(**change))


@pytest.mark.parametrize("name", losses.names())
def test_not_a_prediction(name: str) -> None:
    with pytest.raises(TypeError, match=r"losses\.Prediction; found Tensor"):
        losses.build(name)(torch.rand(1, 1, 6, 8), Target([scatter(2, SIZE)], SIZE))
    with pytest.raises(TypeError, match=r"losses\.Target; found list"):
        losses.build(name)(predict(name, SIZE), [scatter(2, SIZE)])


def test_unknown_names_come_with_suggestions() -> None:
    with pytest.raises(ValueError, match="Did you mean dm_count"):
        losses.build("dm_cuont")
    with pytest.raises(AttributeError, match="PMLL"):
        _ = losses.PMLL
