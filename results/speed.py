"""What losses cost on a machine: `speed/<when>.json` of a store, written by `benchmark speed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from results.atomic import printable, write_text
from results.documents import content, value
from results.frames import StoreError

__all__ = ["Cost", "Speed", "SpeedRow", "StepProfile", "read_all", "write"]

FOLDER = "speed"
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Size = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(max_length=200)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Cost(_Strict):
    """What a forward and a backward pass cost.

    Attributes:
        ms: Median, milliseconds; None where it could not be measured, and `problem` says why.
        low, high: Quartiles, milliseconds.
        calls: What they are of.
        peak_mib: Highest memory above that before, MiB.
        problem: Why there is no time.
    """

    ms: _Positive | None
    low: _Positive | None = None
    high: _Positive | None = None
    calls: int = 0
    peak_mib: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    problem: str = Field(default="", max_length=500)


class SpeedRow(_Strict):
    """One loss on one workload.

    Attributes:
        loss: As typed, `dm_count[variant=official]`.
        cells, people, images, stride: Side of the map, heads an image, images of the batch, pixels a cell.
        workload: Its name, or `scaling`.
        own: What the loss costs.
        dense: What the same mathematics costs with matrices of points x cells; None where that was not measured.
        network_ms: A training step of the network without its loss, where the workload is one.
    """

    loss: str = Field(max_length=300)
    workload: str = Field(max_length=60)
    cells: _Size
    people: _Size
    images: _Size
    stride: _Size
    own: Cost
    dense: Cost | None = None
    network_ms: _Positive | None = None

    @property
    def size(self) -> str:
        """`64x64, 300 people, batch 8`."""
        ending = f", batch {self.images}" if self.images > 1 else ""
        return f"{self.cells}x{self.cells}, {self.people} people{ending}"

    @property
    def ratio(self) -> float | None:
        """How many times longer the dense way takes."""
        known = self.dense is not None and self.dense.ms is not None and self.own.ms is not None
        return self.dense.ms / self.own.ms if known else None  # type: ignore[union-attr, operator]

    @property
    def share(self) -> float | None:
        """The loss's share of a training step."""
        if self.own.ms is None or self.network_ms is None:
            return None
        return self.own.ms / (self.own.ms + self.network_ms)


class StepProfile(_Strict):
    """Where the time of a training step goes, with one loss.

    Attributes:
        loss: As typed.
        parts: Milliseconds of the step's parts in their order, medians; see `benchmark.speed.profile`.
        functions: Share of the loss's time in each of its largest functions.
    """

    loss: str = Field(max_length=300)
    parts: dict[_Name, _Time] = Field(max_length=20)
    functions: dict[_Name, _Share] = Field(max_length=20)


class Speed(_Strict):
    """One call of `benchmark speed`.

    Attributes:
        written: When it began, ISO 8601, UTC.
        backbone: Of the training steps.
        environment: As in a record: processor, device, threads, library versions.
        probe: What the machine can do, see `benchmark.speed.probe`.
        rows: What was measured.
        profiles: Where the time of a training step goes, for the losses that were asked for.
    """

    format: int = Field(default=1, ge=1, le=1)
    written: str = Field(max_length=60)
    backbone: str = Field(max_length=200)
    environment: dict[str, Any]
    probe: dict[str, _Positive]
    rows: list[SpeedRow]
    profiles: list[StepProfile] = []

    @property
    def machine(self) -> str:
        """One line: processor, device, threads, torch, and what the machine can do."""
        here = self.environment
        libraries = here.get("libraries")
        torch = libraries.get("torch") if isinstance(libraries, dict) else None
        able = {"matmul_gflops": "GFlop/s of a matrix product", "copy_gbs": "GB/s copied", "exp_gs": "G exp/s"}
        can = ", ".join(f"{self.probe[name]:.3g} {words}" for name, words in able.items() if name in self.probe)
        device, threads = here.get("device", "?"), here.get("threads", "?")
        return f"{here.get('processor', '?')}, {device}, {threads} thread(s), torch {torch}; {can}, float32."


def write(root: Path, speed: Speed) -> Path:
    """Writes what was measured into a store, in place of what the same call has written before; gives the file."""
    name = "".join(letter for letter in speed.written if letter.isalnum())
    path = root / FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, speed.model_dump_json(indent=1) + "\n")
    return path


def read_all(root: Path, problems: list[str] | None = None) -> list[Speed]:
    """What was measured on this store's machines, the oldest first.

    Args:
        root: The store.
        problems: Files that cannot be read are named here and left out; without it they are errors.

    Raises:
        StoreError: If a file is broken and `problems` is None.
    """
    found = []
    for path in sorted((root / FOLDER).glob("*.json")):
        try:
            found.append(_read(path))
        except StoreError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return sorted(found, key=lambda speed: speed.written)


def _read(path: Path) -> Speed:
    try:
        return Speed.model_validate(value(content(path)))
    except (ValueError, RecursionError) as error:
        said = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        found = f"{path} is no measurement of speed ({printable(said[:200])})"
        raise StoreError(f"{found}; delete it, and `benchmark speed` measures again") from error
