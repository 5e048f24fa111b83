"""Reads golden cases, runs our official losses on them, and measures the distance.

A case is `<loss>_<name>.npz`: inputs, hyper-parameters, and what the authors' code made of them in float64 (`*_f64`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import losses
from losses import Prediction, Target
from losses.transport import floored_rounds

OTHER_FORMATS = ("otm_", "nwpu_", "chfl_empirical_variance")
"""Files of a golden folder that hold no case of a loss."""


class Tolerance(NamedTuple):
    """Largest relative error in float32; the golden README's section 4, for distances formed as differences."""

    value: float
    component: float
    gradient: float


FLOAT64 = Tolerance(1e-6, 1e-6, 1e-6)


class Check(NamedTuple):
    """One comparison: what was compared, how far it is off, and how far it may be."""

    kind: str
    name: str
    error: float
    tolerance: float


class Case:
    """One golden file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.family = path.stem.partition("_")[0]
        with np.load(path) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.meta = json.loads(str(self.arrays["meta"]))
        self.hp: dict[str, Any] = self.meta["hp"]

    def tensor(self, name: str, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(self.arrays[name]).to(dtype)

    def split(self, name: str, dtype: torch.dtype) -> list[Tensor]:
        """One tensor per image."""
        offsets = self.arrays["offsets"].tolist()
        return list(self.tensor(name, dtype).split(np.diff(offsets).tolist()))

    def reference(self, name: str) -> np.ndarray[Any, Any]:
        return np.asarray(self.arrays[f"{name}_f64"], dtype=np.float64)

    def components(self) -> list[str]:
        return [k.removesuffix("_f64") for k in self.arrays if k.startswith("comp_") and k.endswith("_f64")]

    def target(self, dtype: torch.dtype) -> Target:
        visible = self.split("weights", dtype) if "weights" in self.arrays else None
        short = self.tensor("st_sizes", dtype) if "st_sizes" in self.arrays else None
        return Target(
            self.split("points", dtype), (self.meta["image_h"], self.meta["image_w"]), visible=visible, short_side=short
        )


def files(folder: Path) -> list[Path]:
    """The cases of a folder: every file but those of other formats."""
    return sorted(p for p in folder.glob("*.npz") if not p.name.startswith(OTHER_FORMATS))


# ---------------------------------------------------------------------------------------------------------------------
# One entry per family of files: which loss it is, its parameters, its components in our terms, its tolerances.


@cache
def _variance_map(folder: Path) -> Tensor:
    path = folder / "chfl_empirical_variance.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the noise_emp cases need the map that lies beside them")
    with np.load(path) as arrays:
        return torch.as_tensor(arrays["h"])


def _chfl(case: Case) -> dict[str, Any]:
    common = {"steps": case.hp["chf_step"], "tick": case.hp["chf_tik"], "bandwidth": float(case.hp["bandwidth"])}
    match case.hp["variant"]:
        case "l2":
            return common | {"norm": "sparse"}
        case "dense":
            return common
        case "noise_emp":
            return common | {"variance_map": _variance_map(case.path.parent), "noise_weight": case.hp["coeff"]}
        case "noise_gauss":
            return common | {"noise_std": float(case.hp["noise_bandwidth"])}
        case other:
            raise ValueError(f"{case.path.name}: unknown ChfL variant {other!r}")


class Family(NamedTuple):
    """How the files of one prefix are read.

    Attributes:
        loss: Name of our loss.
        params: Its parameters for a case.
        components: Official component -> the same from our terms; arguments are terms and case.
        float32: Tolerances in float32.
    """

    loss: str
    params: Callable[[Case], dict[str, Any]]
    components: dict[str, Callable[[dict[str, float], Case], float]]
    float32: Tolerance


def _batch(case: Case) -> int:
    return len(case.arrays["offsets"]) - 1


def _elements(case: Case) -> int:
    return int(case.arrays["density"].size)


FAMILIES = {
    "pml": Family(
        "pml",
        lambda c: {"factor": float(c.hp["factor"]), "fallback_count": {2: "x", 3: "points"}[c.hp["seq_cols"]]},
        {
            "comp_oot": lambda t, c: t["background"] * _batch(c),
            "comp_cnt": lambda t, c: t["count"] * _batch(c),
        },
        Tolerance(1e-6, 1e-6, 1e-6),
    ),
    "l2": Family(
        "l2",
        lambda c: {"sigma": float(c.hp["gauss_sigma"])},
        {
            "comp_sse": lambda t, c: t["squared_error"] * _batch(c),
            "comp_mse_mean": lambda t, c: t["squared_error"] * _batch(c) / _elements(c),
            "comp_cos": lambda t, c: t["cosine"] * _batch(c) / 10,
        },
        Tolerance(1e-6, 5e-6, 1e-6),  # 1 - cos cancels: the authors' own float32 is 2.4e-6 off
    ),
    "bl": Family(
        "bl",
        lambda c: {
            "sigma": c.hp["sigma"],
            "background": c.hp["use_background"],
            "background_ratio": c.hp["background_ratio"],
        },
        {},
        Tolerance(1e-6, 1e-6, 1e-6),
    ),
    "noisecc": Family(
        "noisecc",
        lambda c: {
            "alpha": c.hp["alpha"],
            "sigma": c.hp["sigma"],
            "background": c.hp["use_background"],
            "background_ratio": c.hp["background_ratio"],
            "ratio": c.hp["ratio"],
            "floor": c.hp["minx"],
            "add_floor": c.hp["add"],
            "weight": c.hp["weight"],
            "regularizer": c.hp["reg"],
        },
        {
            "comp_lg1_sum": lambda t, c: t["diagonal"] * _batch(c) * 2 / c.hp["weight"],
            "comp_lg2_sum": lambda t, c: -t["correlation"] * _batch(c) * 2 / c.hp["weight"],
        },
        Tolerance(2e-4, 2e-4, 1e-5),
    ),
    "dm": Family(
        "dm_count",
        lambda c: {
            "ot_weight": c.hp["wot"],
            "tv_weight": c.hp["wtv"],
            "reg": c.hp["reg"],
            "iterations": c.hp["num_of_iter_in_ot"],
            "normalise": bool(c.hp["norm_cood"]),
        },
        {
            "comp_count": lambda t, c: t["count"],
            "comp_tv_weighted": lambda t, c: t["tv"],
            "comp_ot_weighted": lambda t, c: t["ot"],
            "comp_wd": lambda t, c: _transport_diagnostics(c.path)[0],
            "comp_ot_obj_weighted": lambda t, c: _transport_diagnostics(c.path)[1],
        },
        Tolerance(2e-6, 2e-6, 2e-6),
    ),
    "gl": Family(
        "gl",
        lambda c: {
            "tau": c.hp["tau"],
            "cost": {"per": "perspective", "exp": "exp"}[c.hp["cost"]],
            "reach": c.hp["reach"],
            "blur": c.hp["blur"],
            "scaling": c.hp["scaling"],
            "point_norm": c.hp["d_point"],
            "pixel_norm": c.hp["d_pixel"],
            "crop_size": float(c.hp["crop_size"]),
        },
        {
            "comp_emd": lambda t, c: t["emd"],
            "comp_point": lambda t, c: t["point"] / c.hp["tau"],
            "comp_pixel": lambda t, c: t["pixel"] / c.hp["tau"],
            "comp_entropy": lambda t, c: t["entropy"] / c.hp["blur"],
        },
        Tolerance(2e-6, 2e-5, 5e-6),
    ),
    "chfl": Family("chfl", _chfl, {}, Tolerance(1e-6, 1e-6, 1e-5)),
    "p2p": Family(
        "p2p",
        lambda c: {"eos": c.hp["eos_coef"], "cost_point": c.hp["set_cost_point"]},
        {
            "comp_loss_ce": lambda t, c: t["ce"],
            "comp_loss_point": lambda t, c: t["point"],
            "comp_total_intended": lambda t, c: t["ce"] + c.hp["point_loss_coef"] * t["point"],
        },
        Tolerance(5e-7, 1e-6, 1e-6),
    ),
}


def tolerance(case: Case, dtype: torch.dtype) -> Tolerance:
    """What a case may be off; two groups of cases have more noise than their loss."""
    if dtype == torch.float64:
        return FLOAT64
    standard = FAMILIES[case.family].float32
    if case.family == "chfl" and "noise" in case.hp["variant"]:
        return standard._replace(gradient=5e-5)
    if case.family == "gl" and case.meta["name"] == "nearzero":
        return standard._replace(gradient=3e-5)
    return standard


@cache
def _transport_diagnostics(path: Path) -> tuple[float, float]:
    """DM-Count's two logged values, from our duals in float64: <C, plan>, and the weighted <d / S, beta>.

    The loss needs neither; they are summed over the images of the batch.
    """
    case = Case(path)
    distance = objective = 0.0
    stride, side = case.meta["stride"], case.meta["image_w"]
    for points, density in zip(case.split("points", torch.float64), case.tensor("density", torch.float64), strict=True):
        if not len(points):
            continue
        mass = density[0] / (density.sum() + 1e-6)
        scale = (2 / side) ** 2 if case.hp["norm_cood"] else 1.0
        reg = case.hp["reg"]
        beta = floored_rounds(points, mass, stride, reg=reg, scale=scale, iterations=case.hp["num_of_iter_in_ot"])
        y, x = ((torch.arange(cells, dtype=torch.float64) + 0.5) * stride for cells in mass.shape)
        cost = scale * ((points[:, 1:, None] - y[:, None]) ** 2 + (points[:, :1, None] - x) ** 2)
        v, kernel = torch.exp(beta / reg) - 1e-16, torch.exp(-cost / reg)
        u = 1 / len(points) / ((kernel * v).sum((1, 2)) + 1e-16)
        distance += (u[:, None, None] * kernel * v * cost).sum().item()
        objective += (mass * beta).sum().item()
    return distance, case.hp["wot"] * objective


# ---------------------------------------------------------------------------------------------------------------------
# Running and comparing.


class Outcome(NamedTuple):
    """What our loss makes of a case: its value, its terms, and the gradient of each prediction."""

    value: float
    terms: dict[str, float]
    gradients: dict[str, np.ndarray[Any, Any]]


def run(case: Case, dtype: torch.dtype) -> Outcome:
    """Runs our official variant on a case."""
    return _run_points(case, dtype) if case.family == "p2p" else _run_density(case, dtype)


def _run_density(case: Case, dtype: torch.dtype) -> Outcome:
    family = FAMILIES[case.family]
    density = case.tensor("density", dtype).requires_grad_()
    loss = losses.build(family.loss, variant="official", **family.params(case))
    out = loss(Prediction(case.meta["stride"], density=density), case.target(dtype))
    out["loss"].backward()
    assert density.grad is not None
    return Outcome(out["loss"].item(), _terms(out), {"grad_density": density.grad.double().numpy()})


def _run_points(case: Case, dtype: torch.dtype) -> Outcome:
    """The official total is the class term alone; the point term and its gradient come from the paper's total."""
    params = FAMILIES["p2p"].params(case)
    logits = case.tensor("logits", dtype).requires_grad_()
    points = case.tensor("pred_points", dtype).requires_grad_()
    prediction, target = Prediction(case.meta["stride"], points=points, logits=logits), case.target(dtype)
    official = losses.build("p2p", variant="official", **params)(prediction, target)
    both = losses.build("p2p", variant="paper", point_weight=1.0, **params)(prediction, target)
    both["loss"].backward()
    assert logits.grad is not None
    assert points.grad is not None
    gradients = {"grad_logits": logits.grad.double().numpy(), "grad_pred_points": points.grad.double().numpy()}
    return Outcome(official["loss"].item(), _terms(both), gradients)


def _terms(out: dict[str, Tensor]) -> dict[str, float]:
    return {key.removeprefix("term/"): value.item() for key, value in out.items() if key != "loss"}


def compare(case: Case, dtype: torch.dtype) -> list[Check]:
    """All comparisons of a case: value, every named component, every gradient."""
    family, allowed, outcome = FAMILIES[case.family], tolerance(case, dtype), run(case, dtype)
    value = float(case.reference("loss"))
    checks = [Check("value", "loss", _relative(outcome.value, value, _scale(case)), allowed.value)]
    for name in case.components():
        found, expected = family.components[name](outcome.terms, case), float(case.reference(name))
        if name == "comp_ot_weighted":  # zero up to rounding: 1e-5 of absolute noise [golden README]
            checks.append(Check("component", name, abs(found - expected), 1e-5))
        else:
            checks.append(Check("component", name, _relative(found, expected, _scale(case)), allowed.component))
    for name, found_gradient in outcome.gradients.items():
        reference = case.reference(name)
        largest = np.abs(reference).max()
        worst = np.abs(found_gradient - reference).max()
        checks.append(Check("gradient", name, float(worst / largest) if largest else float(worst), allowed.gradient))
    return checks


def _scale(case: Case) -> float:
    """PML's two components cancel: the sum of their sizes is the scale of its errors."""
    if case.family != "pml":
        return 0.0
    return float(abs(case.reference("comp_oot")) + abs(case.reference("comp_cnt"))) / _batch(case)


def _relative(found: float, expected: float, scale: float) -> float:
    size = max(abs(expected), scale)
    return abs(found - expected) / size if size else abs(found)
