"""The interface itself: defaults of a sample, when values are checked, the parameter checks, and the registry."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

import losses
from losses import CrowdLoss, Prediction, Sample, Target
from losses.base import check_choice, check_number, samples


class Sum(CrowdLoss):
    """Sum of the density: as simple as a loss can be."""

    def image_terms(self, sample: Sample) -> dict[str, torch.Tensor]:
        return {"total": sample.density.sum()}


DENSITY = torch.rand(2, 1, 3, 4, dtype=torch.float64)
TARGET = Target([torch.rand(2, 2), torch.rand(0, 2)], (24, 30))


def test_defaults_of_a_sample() -> None:
    first, second = samples(Prediction(8, density=DENSITY), TARGET)
    assert first.visible.tolist() == [1.0, 1.0]
    assert second.visible.shape == (0,)
    assert first.short_side == 24
    assert first.spacing is None
    assert first.points.dtype == torch.float64
    assert torch.equal(second.density, DENSITY[1, 0])
    assert [len(points) for points in first.batch_points] == [2, 0]


def test_the_callers_extras_reach_the_sample() -> None:
    target = TARGET._replace(
        visible=[torch.tensor([0.5, 0.25]), torch.zeros(0)],
        short_side=torch.tensor([100.0, 200.0]),
        spacing=[torch.tensor([3.0, 4.0]), torch.zeros(0)],
    )
    first, second = samples(Prediction(8, density=DENSITY), target)
    assert first.visible.tolist() == [0.5, 0.25]
    assert second.short_side == 200
    assert first.spacing is not None
    assert first.spacing.tolist() == [3.0, 4.0]


def test_terms_are_averaged() -> None:
    out = Sum()(Prediction(8, density=DENSITY), TARGET)
    torch.testing.assert_close(out["loss"], DENSITY.sum() / 2)
    assert list(out) == ["loss", "term/total"]


@pytest.mark.parametrize(("validate", "raises"), [(None, True), (True, True), (False, False)])
def test_values_are_checked_on_the_cpu_unless_told_otherwise(validate: bool | None, raises: bool) -> None:
    prediction = Prediction(8, density=-DENSITY)
    if raises:
        with pytest.raises(ValueError, match=r"prediction\.density must not be negative"):
            Sum(validate=validate)(prediction, TARGET)
    else:
        assert Sum(validate=validate)(prediction, TARGET)["loss"] < 0


def test_values_are_not_looked_at_elsewhere() -> None:
    """A meta tensor has no values: reading one would raise, as it would synchronise an accelerator."""
    meta = Target([p.to("meta") for p in TARGET.points], TARGET.image_size)
    out = Sum()(Prediction(8, density=DENSITY.to("meta")), meta)
    assert out["loss"].device.type == "meta"


def test_a_loss_must_say_what_it_computes() -> None:
    with pytest.raises(NotImplementedError, match="CrowdLoss must define image_terms"):
        CrowdLoss()(Prediction(8, density=DENSITY), TARGET)


def test_check_choice() -> None:
    check_choice("norm", "l1", ("l1", "l2"))
    with pytest.raises(
        ValueError, match=r"kernel must be one of fixed, adaptive; found 'adaptve'\. Did you mean adaptive"
    ):
        check_choice("kernel", "adaptve", ("fixed", "adaptive"))


@pytest.mark.parametrize(
    ("value", "limits", "error"),
    [
        (0.0, {"above": 0}, "tau must be above 0; found 0"),
        (-1, {"at_least": 0}, "tau must be at least 0; found -1"),
        (math.inf, {}, "tau must be finite"),
        (math.nan, {"above": 0}, "tau must be finite"),
    ],
)
def test_check_number(value: float, limits: dict[str, float], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        check_number("tau", value, **limits)


@pytest.mark.parametrize("value", ["1", None, True])
def test_check_number_wants_numbers(value: object) -> None:
    with pytest.raises(TypeError, match="tau must be a number"):
        check_number("tau", value)  # type: ignore[arg-type]


def test_names_and_classes() -> None:
    assert {"bl", "chfl", "dm_count", "gl", "l2", "noisecc", "p2p", "pml"} <= set(losses.names())
    for name in losses.names():
        cls = losses.load(name)
        assert getattr(losses, cls.__name__) is cls
        assert isinstance(losses.build(name), cls)


def test_listing_the_losses_loads_nothing_heavy() -> None:
    code = "import sys, losses; losses.names(); assert not {'torch', 'numpy', 'scipy', 'ot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
