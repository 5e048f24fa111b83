"""Where runs are executed, one file an engine: processes on this machine, a Ray cluster, or Slurm.

An engine has `Options`, what it wants to know beside the jobs (a pydantic model; its fields are words of the command
line), `check(options)`, which raises `EngineError` where it cannot work here, and `run_jobs(jobs, options, on_event)`.
All of them start `runners.worker` for a run: a record does not depend on which it was.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

__all__ = ["NAMES", "EngineError", "load", "needs"]

NAMES = ("local", "ray", "slurm")
"""The engines, by the name of their file."""


class EngineError(RuntimeError):
    """An engine cannot work here, or lost what it works with; the message says what to do."""


def load(name: str) -> ModuleType:
    """The engine of this name.

    Raises:
        EngineError: If there is none.
    """
    if name not in NAMES:
        raise EngineError(f"there is no engine {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"runners.engines.{name}")


def needs(package: str, extra: str) -> None:
    """Checks that an optional package is installed, without importing it.

    Raises:
        EngineError: If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise EngineError(
            f"--engine {extra} needs the package {package}, which is not installed: "
            f"pip install 'crowd-loss-benchmark[{extra}]'"
        )
