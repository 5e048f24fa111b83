"""From a study's axes to runs: every combination becomes a `Planned` run or a `Skipped` one with its reason."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from benchmark.names import Choice, parse_choice, split_choices
from benchmark.recipes import RECIPES, recipe_for
from benchmark.study import Match, Study
from losses.discovery import check_known
from results.limits import limit
from results.spec import RunSpec, Scalar

__all__ = ["PlanError", "Planned", "Skipped", "known_defaults", "loss_defaults", "plan", "variations"]


class PlanError(ValueError):
    """A plan that cannot be made: a name, a parameter or a setting is wrong for all runs."""


class Planned(NamedTuple):
    """A run to train. `loss` is the loss as typed; `weights` the file of pretrained features, if there is one."""

    spec: RunSpec
    loss: str
    weights: Path | None

    @property
    def label(self) -> str:
        """A short name for people."""
        return _label(self.loss, self.spec.backbone, self.dataset, self.spec.noise, self.spec.seed)

    @property
    def dataset(self) -> str:
        """The dataset with the parameters that were typed."""
        return str(Choice(self.spec.dataset, self.spec.dataset_params))


class Skipped(NamedTuple):
    """A combination that is not trained, and why."""

    label: str
    reason: str


class _Network(NamedTuple):
    """A backbone with its head, stride and pretrained features, resolved for one kind of loss."""

    head: str
    stride: int
    output: str
    weights: str
    weights_hash: str
    path: Path | None


class _Data(NamedTuple):
    """A dataset with every parameter that was typed and the hash of its content."""

    params: dict[str, Scalar]
    content: str


def plan(study: Study, data_root: Path | None = None) -> list[Planned | Skipped]:
    """Combines the axes of a study, in order: dataset, noise, backbone, loss, seed.

    Names and parameters are checked before anything else, so that a misspelt loss is an error and no skipped run. A
    dataset that is not there, pretrained weights that are missing, and heads that do not fit a loss are skipped.

    Args:
        study: The axes.
        data_root: Folder below which datasets are searched.

    Raises:
        PlanError: If a name, a parameter or a setting is wrong.
    """
    try:
        return list(_combine(study, data_root))
    except (ValueError, TypeError) as error:
        if isinstance(error, PlanError):
            raise
        raise PlanError(_plain(error)) from error


def _combine(study: Study, data_root: Path | None) -> Iterator[Planned | Skipped]:
    import losses
    from runners import backbones, data
    from runners.data import noise

    check_known("recipe", study.recipe, RECIPES)
    zoo = split_choices(study.losses)
    _refuse_many(study, len(zoo))
    for choice in zoo:
        losses.build(choice.name, **choice.params)
    networks = split_choices(study.backbones)
    for choice in networks:
        backbones.load(choice.name)
        _known_params(choice, ("head", "stride", "weights", "output"))
    datasets = split_choices(study.datasets)
    for choice in datasets:
        data.check_params(choice.name, choice.params)
    noises = [str(noise.parse(text)) for text in study.noises]

    # Hashing a dataset or a weight file takes seconds: once a plan is enough.
    data_of = cache(lambda text: _dataset(parse_choice(text), data_root))
    network_of = cache(lambda text, reads: _network(parse_choice(text), reads, study))
    for dataset, level, network, loss in product(datasets, noises, networks, zoo):
        matches = partial(_matches, {"loss": loss, "backbone": network, "dataset": dataset, "noise": level})
        if study.only and not any(map(matches, study.only)):
            continue
        resolved: list[Any] = []
        reason = next((rule.reason for rule in study.exclude if matches(rule)), None)
        if reason is None:
            for found in (data_of(str(dataset)), network_of(str(network), losses.load(loss.name).reads)):
                reason = reason or (found if isinstance(found, str) else None)
                resolved.append(found)
        for seed in study.seeds:
            if reason is not None:
                yield Skipped(_label(str(loss), str(network), str(dataset), level, seed), reason)
            else:
                yield _planned(study, loss, network.name, dataset.name, level, seed, *resolved)


def _refuse_many(study: Study, zoo: int) -> None:
    """Refuses a study of more combinations than anybody trains, before one of them is made."""
    axes = {
        "losses": zoo,
        "backbones": len(split_choices(study.backbones)),
        "datasets": len(split_choices(study.datasets)),
        "noises": len(study.noises),
    }
    settings = math.prod(axes.values())
    trials = settings * study.budget if study.recipe == "tuned" else 0
    axes["seeds"] = len(study.seeds)
    total, most = settings * axes["seeds"] + trials, limit("CROWD_MAX_RUNS")
    if total > most:
        product_ = " x ".join(f"{count} {name}" for name, count in axes.items())
        tuned = f", and {trials} trials" if trials else ""
        raise PlanError(
            f"{product_}{tuned} are {total} runs, more than the limit of {most}; name fewer, or raise CROWD_MAX_RUNS"
        )


def _planned(
    study: Study, loss: Choice, backbone: str, dataset: str, noise: str, seed: int, found: _Data, network: _Network
) -> Planned:
    """One run, every parameter of the loss written out."""
    import losses

    trained = recipe_for(study.recipe, loss.name, dataset, study.overrides)
    spec = RunSpec(
        loss=loss.name,
        loss_params=loss_defaults(loss.name) | trained.loss_params | loss.params,
        loss_version=losses.load(loss.name).version,
        backbone=backbone,
        head=network.head,
        stride=network.stride,
        output=network.output,
        weights=network.weights,
        weights_hash=network.weights_hash,
        dataset=dataset,
        dataset_params=found.params,
        dataset_hash=found.content,
        noise=noise,
        noise_seed=study.noise_seed,
        recipe=trained.recipe,
        seed=seed,
    )
    return Planned(spec, str(loss), network.path)


@cache
def loss_defaults(name: str) -> dict[str, Scalar]:
    """Every parameter of a loss with its default, `validate` left out: it changes no number."""
    import losses

    parameters = inspect.signature(losses.load(name)).parameters
    return {key: value.default for key, value in parameters.items() if key != "validate"}


def known_defaults(name: str) -> dict[str, Scalar]:
    """`loss_defaults`, or nothing for a loss of a store that this version does not know."""
    import losses

    return dict(loss_defaults(name)) if name in losses.names() else {}


def variations(planned: Planned, budget: int) -> list[Planned]:
    """The trials of a tuned recipe: the same number for every loss, the given values among them.

    A grid around the given learning rate (steps of a factor 3) and main weight (steps of a factor 10), the nearest
    first; a loss without a main weight spends its whole budget on learning rates, in finer steps.
    """
    import losses

    spec = planned.spec
    main = losses.load(spec.loss).main_weight
    centre = spec.loss_params.get(main) if main else None
    weights = [1.0, 0.1, 10.0] if isinstance(centre, int | float) and centre else [1.0]
    step = 3.0 if len(weights) > 1 else 3.0**0.5
    powers = sorted(range(-budget, budget + 1), key=lambda power: (abs(power), power))
    grid = sorted(product(powers, weights), key=lambda pair: (abs(pair[0]) + abs(weights.index(pair[1]) > 0), pair[0]))
    trials = []
    for power, factor in grid[:budget]:
        params = dict(spec.loss_params)
        if main is not None and isinstance(centre, int | float) and factor != 1.0:
            params[main] = centre * factor
        recipe = spec.recipe.model_copy(update={"lr": float(f"{spec.recipe.lr * step**power:.3g}")})
        trials.append(planned._replace(spec=spec.model_copy(update={"recipe": recipe, "loss_params": params})))
    return trials


def _dataset(choice: Choice, root: Path | None) -> _Data | str:
    """The dataset's content hash, or why it cannot be read."""
    from runners import data
    from runners.data.reading import DataError

    try:
        return _Data(choice.params, data.build(choice.name, root=root, **choice.params).fingerprint())
    except (DataError, OSError) as error:
        return _plain(error)


def _network(choice: Choice, reads: Literal["density", "points"], study: Study) -> _Network | str:
    """Head, stride and weights of a backbone for losses that read `reads`, or why it does not fit."""
    from runners import backbones

    stride = choice.params.get("stride", study.stride)
    weights = str(choice.params.get("weights", study.weights) or "imagenet")
    head, usual = backbones.defaults(choice.name, reads, _text(choice.params.get("head", study.head)))
    stride = usual if stride is None else stride
    if not isinstance(stride, int):
        raise PlanError(f"stride of {choice} must be an integer; found {stride!r}")
    output = str(choice.params.get("output", backbones.OUTPUTS[0]))
    check_known(f"output of {choice.name}", output, backbones.OUTPUTS)
    reason = backbones.fits(choice.name, head, stride, reads)
    if reason is not None:
        return reason
    try:
        digest = backbones.weights_hash(weights, choice.name)
    except (ValueError, OSError) as error:
        return _plain(error)
    if digest == "none":
        weights = "none"
    path = Path(weights).resolve() if weights not in ("none", "imagenet") else None
    return _Network(head, stride, output, path.name if path else weights, digest, path)


def _matches(combination: Mapping[str, Choice | str], rule: Match) -> bool:
    """Whether every axis that a rule names has the value it names; a bare name matches whatever its parameters."""
    for axis, value in combination.items():
        wanted = getattr(rule, axis)
        if wanted is not None and wanted not in (str(value), getattr(value, "name", value)):
            return False
    return True


def _known_params(choice: Choice, known: tuple[str, ...]) -> None:
    for name in choice.params:
        check_known(f"parameter of {choice.name}", name, known)


def _label(loss: str, backbone: str, dataset: str, noise: str, seed: int) -> str:
    return " · ".join([loss, backbone, dataset, *([] if noise == "none" else [noise]), f"seed {seed}"])


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value)


def _plain(error: Exception) -> str:
    """An error's own words; a schema's in one line."""
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return str(error)
