"""A study: the axes of a comparison, from a YAML file or the command line.

YAML is read safely and against a schema; an error names the file, the line, the field and what was probably meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import resources
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.study_entries import wrong_entries
from benchmark.study_file import Located, Place, StudyError, listed, misread, one_line, read
from losses.discovery import UnknownNameError, suggestion
from results.atomic import printable
from results.spec import Recipe, Selection

__all__ = ["Exclusion", "Match", "Study", "StudyError", "built_in", "load_study", "validated"]


_LONGEST = 400
"""Characters of a problem that are shown (ours)."""
_Seed = Annotated[int, Field(ge=0, lt=2**63)]
_RULES = 1000
"""Most rules of `only` and of `exclude` (ours): each is compared with every combination."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(_Strict):
    """Combinations whose every named axis has this value: a name, or a name with its parameters."""

    loss: str | None = None
    backbone: str | None = None
    dataset: str | None = None
    noise: str | None = None


class Exclusion(Match):
    """Combinations that are left out, with the reason that is shown."""

    reason: str


class Study(_Strict):
    """The axes of a comparison. Every combination is one run.

    Attributes:
        title, description: What the study is about.
        losses, backbones, datasets: Names, with parameters in brackets: `pml[count_norm=l2]`, `synthetic[train=64]`.
        noises: Annotation noise of the training labels: `none`, `uniform-px:8`, `missing:0.1+gaussian-px:4`.
        seeds: Seeds of initialisation, order and crops.
        noise_seed: Seed of the noise; the same for all losses.
        recipe: shared, official or tuned.
        overrides: Fields of the recipe that are set for all runs.
        budget: Trials of a tuned recipe, for every loss the same.
        head, stride, weights: Of the network; None lets the backbone choose.
        selections: Which weights are kept and measured; tables show the first.
        localizers: What finds points in the trained networks' output, to be scored; parameters in brackets.
        radii: Distances within which a point counts as a hit: `4`, `sigma_l`, `0.5head`, `1:100`; the dataset's own if
            there are none.
        only: If given, combinations that match none of these are no part of the study.
        exclude: Combinations to leave out, shown with their reason.
    """

    title: str = ""
    description: str = ""
    losses: Annotated[list[str], Field(min_length=1)]
    backbones: Annotated[list[str], Field(min_length=1)]
    datasets: Annotated[list[str], Field(min_length=1)]
    noises: Annotated[list[str], Field(min_length=1)] = ["none"]
    seeds: Annotated[list[_Seed], Field(min_length=1)] = [0]
    noise_seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] = 0
    recipe: str = "shared"
    overrides: dict[str, Any] = {}
    budget: Annotated[int, Field(ge=1, le=1000)] = 9
    head: str | None = None
    stride: Annotated[int, Field(ge=1, le=1024)] | None = None
    weights: str | None = None
    selections: Annotated[list[Selection], Field(min_length=1)] = ["val"]
    localizers: Annotated[list[str], Field(max_length=_RULES)] = []
    radii: Annotated[list[str], Field(max_length=_RULES)] = []
    only: Annotated[list[Match], Field(max_length=_RULES)] = []
    exclude: Annotated[list[Exclusion], Field(max_length=_RULES)] = []


def built_in() -> dict[str, Path]:
    """The studies that come with the benchmark, by name."""
    folder = Path(str(resources.files("benchmark"))) / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


class _Problem(NamedTuple):
    """Something wrong at a place of a study."""

    place: Place
    said: str


def load_study(name: str) -> Study:
    """Reads a built-in study by name, or a YAML file by path.

    Raises:
        UnknownNameError: If it is neither.
        StudyError: If the file cannot be read, does not fit the schema, or names what does not exist: every problem on
            a line of its own, `path:LINE: field: what is wrong. Did you mean ...?`
    """
    path = built_in().get(name) or Path(name)
    found = False
    with suppress(OSError, ValueError):  # a name that is too long, or holds what no path may hold
        found = path.is_file()
    if not found:
        known = ", ".join(built_in())
        raise UnknownNameError(f"no study or file {one_line(name)!r}.{suggestion(name, built_in())} Built in: {known}")
    content = read(path)
    study, problems = _parsed(content.values, content.words)
    told = {problem.place for problem in problems}
    further = (
        *_wrong_overrides(content.values),
        *starmap(_Problem, (*misread(content), *wrong_entries(content.values))),
    )
    problems += [problem for problem in further if problem.place not in told]
    if study is None or problems:
        raise _refusal(str(path), problems, content)
    return study


def validated(content: dict[str, Any], source: str) -> Study:
    """Checks the fields of a study and of its recipe overrides.

    Raises:
        StudyError: With every problem found.
    """
    study, problems = _parsed(content, {})
    if study is None or problems:
        raise _refusal(source, problems)
    return study


def _refusal(source: str, problems: list[_Problem], content: Located | None = None) -> StudyError:
    """All problems, in the order of their lines where these are known."""
    told = []
    for problem in problems:
        line = None if content is None else content.line(problem.place)
        field = one_line(".".join(map(str, problem.place)))
        place = source if line is None else f"{source}:{line}"
        said = problem.said if len(problem.said) <= _LONGEST else f"{problem.said[: _LONGEST - 1]}…"
        told.append((line or 0, f"{place}: {field}: {printable(said)}"))
    return StudyError(listed(source, (said for _, said in sorted(told, key=lambda item: item[0]))))


def _parsed(content: Mapping[str, Any], words: Mapping[Place, str]) -> tuple[Study | None, list[_Problem]]:
    """The study, or all that does not fit its schema."""
    problems = []
    overrides = content.get("overrides")
    for field in overrides if isinstance(overrides, dict) else ():
        if field not in Recipe.model_fields:
            hint = suggestion(str(field)[:99], Recipe.model_fields)
            problems.append(_Problem(("overrides", field), f"no field of a recipe.{hint}"))
    try:
        return Study.model_validate(content), problems
    except ValidationError as error:
        return None, problems + [
            _Problem(item["loc"], f"{item['msg']}.{_hint(item['type'], item['loc'], words)}") for item in error.errors()
        ]


def _hint(kind: str, place: Place, words: Mapping[Place, str]) -> str:
    """What was probably meant."""
    last = str(place[-1]) if place else ""
    if kind == "extra_forbidden":
        if len(place) > 1:
            return suggestion(last[:99], (Match if place[0] == "only" else Exclusion).model_fields)
        if last in Recipe.model_fields:
            return " It belongs under overrides."
        under = suggestion(last[:99], Recipe.model_fields).replace("?", ", under overrides?")
        return suggestion(last[:99], Study.model_fields) or under
    if kind == "list_type" and place in words:
        return f" Did you mean [{one_line(words[place])}]?"
    if kind == "string_type" and place in words:
        return f' Did you mean "{one_line(words[place])}", in quotes?'
    if kind == "literal_error":
        return " `benchmark run --help` explains them."
    return ""


def _wrong_overrides(content: Mapping[str, Any]) -> list[_Problem]:
    """Values that the recipe's fields may not have."""
    overrides = content.get("overrides")
    if not isinstance(overrides, dict):
        return []
    try:
        Recipe.model_validate({name: value for name, value in overrides.items() if name in Recipe.model_fields})
    except ValidationError as error:
        return [_Problem(("overrides", *item["loc"]), f"{item['msg']}.") for item in error.errors()]
    return []
