"""What the entries of a study name: every name, parameter and value that does not exist, before anything is planned.

Losses, datasets and localizers that have parameters are built, which is cheap, so that each one's own checks speak.
No network is built, and no dataset is looked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from benchmark.names import Choice, split_choices
from benchmark.recipes import RECIPES
from benchmark.study_file import Place, one_line
from losses.discovery import check_known, parameters

__all__ = ["wrong_entries"]

_NETWORK = ("head", "stride", "weights", "output")
"""Parameters of every network."""
_MOST = 1000
"""Characters of an entry (ours)."""


class _Kind(NamedTuple):
    """What can be named on an axis.

    Attributes:
        word: What one is called.
        known: All names.
        parameters: The parameters of one, by its name.
        wrong: What is wrong with the values of known parameters, by name.
        prefix: How names begin that are not listed.
    """

    word: str
    known: Collection[str]
    parameters: Callable[[str], Collection[str]]
    wrong: Callable[..., Iterable[str]]
    prefix: str | None = None


def wrong_entries(content: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Every place of a study where something is named that does not exist or may not have its value, and why.

    Args:
        content: The study's fields. What is not of the right kind at all is passed over: the schema says so.
    """
    for axis, check in _checks().items():
        texts = content.get(axis)
        for index, text in enumerate(texts if isinstance(texts, list) else ()):
            if isinstance(text, str):
                yield from (((axis, index), said) for said in _said_of(check, text))
    from runners import backbones

    for field, known in (("recipe", RECIPES), ("head", backbones.HEADS)):
        if isinstance(content.get(field), str):
            yield from (((field,), said) for said in _refused(check_known, field, content[field], known))


def _checks() -> dict[str, Callable[[str], Iterable[str]]]:
    """For each axis, what says everything that is wrong with an entry."""
    import losses
    from runners import backbones, data, localizers
    from runners.data import noise
    from runners.metrics.radii import parse_radii

    built = partial(partial, _refused)
    kinds = {
        "losses": _Kind("loss", losses.names(), lambda name: parameters(losses.load(name)), built(losses.build)),
        "datasets": _Kind("dataset", data.names(), _of_dataset, built(_built_nowhere)),
        "localizers": _Kind("localizer", localizers.names(), localizers.defaults, built(localizers.build)),
        # Whether timm has a model is asked when it is planned: timm is slow to load.
        "backbones": _Kind("backbone", backbones.names(), lambda _: _NETWORK, _network, prefix=backbones.TIMM),
    }
    checks: dict[str, Callable[[str], Iterable[str]]] = {axis: partial(_choices, kind) for axis, kind in kinds.items()}
    checks["noises"] = lambda text: _refused(noise.parse, text)
    checks["radii"] = lambda text: _refused(parse_radii, [text])
    return checks


def _said_of(check: Callable[[str], Iterable[str]], text: str) -> Iterable[str]:
    if len(text) > _MOST:
        return [f"{one_line(text)!r} has {len(text)} characters; expected at most {_MOST}"]
    try:
        return list(check(text))
    except ValueError as error:  # no NAME[parameter=value]
        return [str(error)]


def _choices(kind: _Kind, text: str) -> Iterator[str]:
    """What is wrong with a name and its parameters, or with several separated by commas."""
    for choice in split_choices([text]):
        if choice.name not in kind.known and not (kind.prefix and choice.name.startswith(kind.prefix)):
            yield from _refused(check_known, kind.word, choice.name, kind.known)
        elif choice.params:
            yield from _params(kind, choice)


def _params(kind: _Kind, choice: Choice) -> Iterator[str]:
    """Every unknown parameter, and what the others' own checks say."""
    known = kind.parameters(choice.name)
    for name in choice.params:
        yield from _refused(check_known, f"parameter of {choice.name}", name, known)
    rest = {name: value for name, value in choice.params.items() if name in known}
    yield from (f"{choice.name}: {said}" for said in kind.wrong(choice.name, **rest))


def _network(_: str, **params: Any) -> Iterator[str]:
    """Values of a network's parameters that no network has."""
    from runners import backbones

    for name, known in (("head", backbones.HEADS), ("output", backbones.OUTPUTS)):
        if name in params:
            yield from _refused(check_known, name, str(params[name]), known)
    stride = params.get("stride", 1)
    if not isinstance(stride, int) or stride < 1:
        yield f"stride must be an integer of at least 1; found {stride!r}"


def _of_dataset(name: str) -> Collection[str]:
    """The parameters of a dataset that a study may name."""
    from runners import data

    return [key for key in parameters(data.load(name)) if key != "root"]


def _built_nowhere(name: str, **params: Any) -> None:
    """Builds a dataset where no files are: its parameters are checked before the files are missed."""
    from runners import data
    from runners.data.reading import DataError

    try:
        data.build(name, root=os.devnull, **params)
    except DataError:
        return


def _refused(check: Callable[..., Any], *values: Any, **params: Any) -> list[str]:
    """What a check says against its arguments: one sentence, or none."""
    try:
        check(*values, **params)
    except (ValueError, TypeError, OverflowError) as error:
        return [str(error)]
    return []
