"""The engine that `benchmark run` was asked for: what was typed for it, and whether it can work here."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ValidationError

from benchmark.plan import PlanError
from runners import engines

__all__ = ["check", "chosen", "devices_of"]


def check(options: argparse.Namespace) -> None:
    """Refuses an engine that cannot work here, and words that it does not know, before anything is planned.

    Raises:
        EngineError: If a package or a command is missing.
        PlanError: If a word is for another engine, or a value is none.
    """
    if hasattr(options, "engine"):  # `benchmark plan` needs none
        engine, terms = chosen(options)
        engine.check(terms)


def chosen(options: argparse.Namespace) -> tuple[ModuleType, BaseModel]:
    """The engine and its options.

    Raises:
        PlanError: As `check`.
    """
    engine = engines.load(options.engine)
    fields = set(engine.Options.model_fields)
    for name in engines.NAMES:
        for word in set(engines.load(name).Options.model_fields) - fields:
            if getattr(options, word, None) is not None and word != "device":
                raise PlanError(f"--{word.replace('_', '-')} is for --engine {name}, not for {options.engine}")
    typed: dict[str, Any] = {word: value for word in fields if (value := getattr(options, word, None)) is not None}
    if "devices" in fields:
        typed["devices"] = devices_of(options.device)
    try:
        return engine, engine.Options(**typed)
    except ValidationError as error:
        first, *others = error.errors()
        word = str(first["loc"][0]).replace("_", "-")
        words = [other["ctx"]["expected"] for other in others if other["type"] == "literal_error"]
        said = " or ".join([first["msg"][:1].lower() + first["msg"][1:], *words])
        raise PlanError(f"--{word}: {said}; found {first['input']!r}") from error


def devices_of(wanted: str) -> list[str]:
    """The devices to use.

    Raises:
        PlanError: If the device is not there.
    """
    if wanted == "cpu":
        return ["cpu"]
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return [f"cuda:{index}" for index in range(count)] or ["cpu"]
    if not wanted.startswith("cuda") or wanted[4:5] not in ("", ":"):
        raise PlanError(f"--device must be auto, cpu, cuda or cuda:N; found {wanted!r}")
    if count == 0:
        raise PlanError(f"--device {wanted}: torch sees no CUDA device here; use --device cpu")
    if wanted == "cuda":
        return [f"cuda:{index}" for index in range(count)]
    if not wanted[5:].isdigit() or int(wanted[5:]) >= count:
        raise PlanError(f"--device {wanted}: this machine has cuda:0 to cuda:{count - 1}")
    return [wanted]
