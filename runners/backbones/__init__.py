"""Networks that count: a backbone from timm (or MCNN) with a counting head. Torch-free until one is built.

    network = build_counter("vgg19", head="pml", stride=2)
    prediction = network(images)          # losses.Prediction

A backbone is one file here with one `SPEC`; `timm:NAME` is any feature extractor of timm. Heads: `native` (the
backbone's own: MCNN, CSRNet, SFCN), `bl`, `pml`, `points` (P2PNet); see `heads`.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from losses.discovery import check_known, files, suggestion
from runners.backbones.spec import HEADS, OUTPUTS, Backbone

if TYPE_CHECKING:
    from runners.backbones.network import CounterNet

Reads = Literal["density", "points"]

__all__ = ["HEADS", "OUTPUTS", "build_counter", "defaults", "fits", "load", "names", "weights_hash"]

TIMM = "timm:"
_SUPPORT = frozenset({"features", "heads", "network", "spec", "weights"})
"""Files of this package that hold no backbone."""


@cache
def names() -> tuple[str, ...]:
    """The names of all backbones, sorted; beside them any `timm:NAME` is one. Reads file names only."""
    return files(__path__[0], without=_SUPPORT)


@cache
def load(name: str) -> Backbone:
    """What is known of a backbone. Torch-free, except for `timm:NAME`, which asks timm.

    Raises:
        ValueError: If there is no such backbone, with the nearest names; or if a model of timm cannot serve as one.
    """
    if name.startswith(TIMM):
        return _load_timm(name.removeprefix(TIMM))
    if name not in names():
        check_known("backbone", name, (*names(), "timm:NAME"))
    return importlib.import_module(f"{__name__}.{name}").SPEC


def _load_timm(model: str) -> Backbone:
    import timm

    if not timm.is_model(model.partition(".")[0]):
        near = suggestion(model, timm.list_models())
        raise ValueError(f"timm has no model {model!r}.{near} All: timm.list_models()")
    if "." in model and model not in timm.list_pretrained():
        tags = [tagged for tagged in timm.list_pretrained() if tagged.startswith(f"{model.partition('.')[0]}.")]
        raise ValueError(f"timm has no weights {model!r}. Known: {', '.join(tags) or 'none'}")
    from runners.backbones.features import timm_backbone

    return timm_backbone(model)


def defaults(backbone: str, reads: Reads = "density", head: str | None = None) -> tuple[str, int]:
    """The head and stride of a backbone where none is asked for.

    Args:
        backbone: A name of `names()` or `timm:NAME`.
        reads: What the loss reads.
        head: The head, if that is given; then only the stride is looked up.

    Returns:
        `points` at stride 8 for a loss that reads points; else the backbone's own head at its stride, or `bl` at 8.

    Raises:
        ValueError: If the backbone or the head is unknown.
    """
    spec = load(backbone)
    if head is None:
        head = "points" if reads == "points" else "native" if "native" in spec.reads else "bl"
    if head not in HEADS:
        check_known("head", head, HEADS)
    return head, spec.stride(head) if head in spec.reads else HEADS[head] or 8


def fits(backbone: str, head: str | None = None, stride: int | None = None, reads: Reads = "density") -> str | None:
    """Why a combination cannot be built, for planning: `None` if it can. `None` for head or stride: the default.

    Raises:
        ValueError: If the backbone or the head is unknown.
    """
    head, usual = defaults(backbone, reads, head)
    if (head == "points") != (reads == "points"):
        gives, needed = ("points", "bl, pml or native") if head == "points" else ("a density", "points")
        return f"head {head} gives {gives} and the loss reads {reads}; use head {needed}"
    return load(backbone).misfit(backbone, head, usual if stride is None else stride)


def weights_hash(weights: str | Path, backbone: str) -> str:
    """The part of a run's identity that initial weights are.

    Returns:
        `none`; `timm:<model>.<tag>` for `imagenet`; `sha256:<hex>` for a file. A backbone without pretrained weights
        (MCNN) starts from scratch under `imagenet`, hence `none`.

    Raises:
        ValueError: If the file does not exist, or the backbone cannot take one.
    """
    spec = load(backbone)
    if weights == "none" or (weights == "imagenet" and spec.timm is None):
        return "none"
    if weights == "imagenet":
        return f"timm:{spec.timm}"
    _check_takes_weights(spec, backbone)
    from runners.backbones.weights import file_hash

    return file_hash(Path(weights))


def _check_takes_weights(spec: Backbone, name: str) -> None:
    if spec.timm is None:
        raise ValueError(f"backbone {name} is trained from scratch and takes no weight file; use --weights none")


def build_counter(
    backbone: str,
    *,
    head: str | None = None,
    stride: int | None = None,
    reads: Reads = "density",
    weights: str | Path = "imagenet",
    output: str = "abs",
) -> CounterNet:
    """Builds a network. Random weights come from torch's global generator: seed it before.

    Args:
        backbone: A name of `names()` or `timm:NAME`.
        head: `native`, `bl`, `pml` or `points`. Default: see `defaults`.
        stride: Input pixels per cell of the prediction. Default: the head's published one.
        reads: What the loss reads: `density` or `points`.
        weights: `imagenet` (timm's, downloaded if need be; MCNN has none and starts from scratch), `none`, or a file in
            timm's key names. The head always starts from random weights.
        output: `abs` or `relu`, what makes the density non-negative; see `heads.NonNegative`.

    Raises:
        ValueError: If something is unknown, does not fit together, or the weights cannot be had or do not fit; the
            message says what to do.
    """
    reason = fits(backbone, head, stride, reads)
    if reason is not None:
        raise ValueError(reason)
    if output not in OUTPUTS:
        raise ValueError(f"output must be one of {', '.join(OUTPUTS)}; found {output!r}")
    head, usual = defaults(backbone, reads, head)
    stride = stride or usual
    spec = load(backbone)
    from runners.backbones.network import CounterNet

    return CounterNet(
        _build_backbone(spec, backbone, spec.reads[head], weights),
        _build_head(spec, head, stride, output),
        head=head,
        stride=stride,
        multiple=max(spec.multiple, stride, *spec.reads[head]),
    )


def _build_backbone(spec: Backbone, name: str, levels: tuple[int, ...], weights: str | Path) -> Any:
    """The feature extractor with its initial weights."""
    if spec.network is not None:
        if weights not in ("none", "imagenet"):
            _check_takes_weights(spec, name)
        return _resolve(spec.network)()
    from runners.backbones.features import TimmFeatures

    if weights == "none":
        return TimmFeatures(spec, levels)
    from runners.backbones.weights import check_loaded, fetch, read

    assert spec.timm is not None
    path = fetch(spec.timm) if weights == "imagenet" else Path(weights)
    state = read(path)
    features = TimmFeatures(spec, levels, state)
    check_loaded(features, state, str(path))
    return features


def _build_head(spec: Backbone, head: str, stride: int, output: str) -> Any:
    """The head, with arguments only where they depart from its published defaults."""
    from runners.backbones.heads import BayesianHead, NativeHead, PointHead, PyramidHead

    channels = {level: spec.levels[level].channels for level in spec.reads[head]}
    options: dict[str, Any] = {} if head == "points" else {"output": output}
    if head == "native":
        assert spec.native is not None
        return NativeHead(channels, _resolve(spec.native)(*channels.values()), stride, **options)
    if spec.width is not None:
        options["width"] = spec.width
    if head != "bl":
        options["norm"] = spec.norm
    return {"bl": BayesianHead, "pml": PyramidHead, "points": PointHead}[head](channels, stride, **options)


def _resolve(path: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
