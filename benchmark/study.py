"""A study: the axes of a comparison, from a YAML file or the command line.

YAML is read safely and against a schema; an error names the file, the field and what was probably meant.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from losses.discovery import UnknownNameError, suggestion
from results.spec import Recipe, Selection

__all__ = ["Exclusion", "Match", "Study", "StudyError", "built_in", "load_study"]

_MAX_BYTES = 1_000_000


class StudyError(ValueError):
    """A study file that cannot be used."""


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
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    noise_seed: int = 0
    recipe: str = "shared"
    overrides: dict[str, Any] = {}
    budget: Annotated[int, Field(ge=1, le=1000)] = 9
    head: str | None = None
    stride: int | None = None
    weights: str | None = None
    selections: Annotated[list[Selection], Field(min_length=1)] = ["val"]
    localizers: list[str] = []
    radii: list[str] = []
    only: list[Match] = []
    exclude: list[Exclusion] = []


def built_in() -> dict[str, Path]:
    """The studies that come with the benchmark, by name."""
    folder = Path(str(resources.files("benchmark"))) / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_study(name: str) -> Study:
    """Reads a built-in study by name, or a YAML file by path.

    Raises:
        UnknownNameError: If it is neither.
        StudyError: If the file cannot be read or does not fit the schema.
    """
    path = built_in().get(name) or Path(name)
    if not path.is_file():
        known = ", ".join(built_in())
        raise UnknownNameError(f"no study or file {name!r}.{suggestion(name, built_in())} Built in: {known}")
    if path.stat().st_size > _MAX_BYTES:
        raise StudyError(f"{path} has {path.stat().st_size} bytes; a study has at most {_MAX_BYTES}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} is no valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise StudyError(f"{path} must hold a table of axes (losses: [...], ...); found {type(content).__name__}")
    return validated(content, str(path))


def validated(content: dict[str, Any], source: str) -> Study:
    """Checks the fields of a study and of its recipe overrides.

    Raises:
        StudyError: With every problem found.
    """
    problems = []
    for field in content.get("overrides") or {}:
        if field not in Recipe.model_fields:
            problems.append(f"overrides.{field}: no field of a recipe.{suggestion(str(field), Recipe.model_fields)}")
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        for item in error.errors():
            place = ".".join(str(part) for part in item["loc"])
            hint = ""
            if item["type"] == "extra_forbidden":
                recipe = place in Recipe.model_fields
                hint = " It belongs under overrides." if recipe else suggestion(place, Study.model_fields)
            problems.append(f"{place}: {item['msg']}.{hint}")
    if problems:
        raise StudyError(f"{source}: " + "; ".join(problems))
    return study
