"""`benchmark speed`: measures, prints, and keeps what was measured in a store."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

import losses
from benchmark.names import Choice, split_choices
from benchmark.show import console, progress_console
from benchmark.speed.dense import DENSE, OFFICIAL, reference
from benchmark.speed.measure import Job, Measured, measured, network_ms
from benchmark.speed.probe import probe
from benchmark.speed.profile import profiled
from benchmark.speed.workloads import SCALING, WORKLOADS, Workload
from losses.discovery import check_known
from reports.page import Part
from reports.render import terminal
from reports.speed import speed_part
from reports.style import looks
from results.atomic import printable
from results.speed import Cost, Speed, SpeedRow, StepProfile, read_all, write
from runners.backbones import Reads, fits
from runners.environment import describe
from runners.memory import keep_freed

__all__ = ["measure", "speed"]

_MOST_ENTRIES = 5e7
"""Points x cells beyond which the log domain of DM-Count's dense reference is not measured: 200 passes of exponentials
over them take minutes a call (ours)."""


def speed(options: argparse.Namespace) -> int:
    """Carries out the command. Every row is kept as soon as it is measured.

    Raises:
        ValueError: If a loss, a workload or the device is unknown, a number out of range, or nothing to resume.
        StoreError: If there is a broken file among those that could be resumed.
    """
    kept = _Kept(options.output)
    try:
        found = measure(
            split_choices(options.losses),
            options.workloads,
            device=options.device,
            backbone=options.backbone,
            seconds=options.seconds,
            dense=not options.no_reference,
            scaling=options.scaling,
            profile=options.profile,
            earlier=read_all(options.output) if options.resume else None,
            keep=kept,
        )
    except KeyboardInterrupt:
        progress_console.print(f"stopped; {kept.said()}", soft_wrap=True)
        return 130
    except Exception:
        progress_console.print(kept.said(), soft_wrap=True)
        raise
    path = write(options.output, found)
    if options.json:
        print(found.model_dump_json(indent=1))  # noqa: T201
        return 0
    for table in part_of([found]).tables:
        console.print(terminal(table, console.width))
        console.print()
    progress_console.print(f"kept in {escape(str(path))}; `benchmark report` reads it", soft_wrap=True)
    return 0


class _Kept:
    """Writes what is measured so far, again after every row.

    Attributes:
        path: The file; None before the first row.
        rows: Rows in it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path: Path | None = None
        self.rows = 0

    def __call__(self, found: Speed) -> None:
        self.path, self.rows = write(self.root, found), len(found.rows)

    def said(self) -> str:
        """What there is, and how to go on."""
        if self.path is None:
            return "nothing new was measured"
        rows = "1 row is" if self.rows == 1 else f"{self.rows} rows are"
        return f"{rows} kept in {escape(str(self.path))}; the same command with --resume goes on"


def part_of(found: Sequence[Speed]) -> Part:
    """Tables and figures of measurements, all losses with looks of their own."""
    return speed_part(found, looks({row.loss for one in found for row in one.rows}))


def measure(
    choices: Sequence[Choice] = (),
    workloads: Sequence[str] = ("step", "batch", "dense"),
    *,
    device: str = "cpu",
    backbone: str = "mcnn",
    seconds: float = 2.0,
    dense: bool = True,
    scaling: bool = False,
    profile: bool = False,
    earlier: Sequence[Speed] | None = None,
    keep: Callable[[Speed], None] = lambda found: None,
) -> Speed:
    """Measures losses on workloads, one after the other: nothing else should run on the machine.

    Args:
        choices: Losses with parameters; by default all, DM-Count in both variants.
        workloads: Names of `benchmark.speed.workloads.WORKLOADS`.
        device: As torch names it. On the CPU one thread is used.
        backbone: Of the training step that the workload `step` is a share of.
        seconds: How long each measurement repeats.
        dense: Whether the dense references are measured too.
        scaling: Whether points and cells are varied too, for exponents.
        profile: Whether a training step with each loss is taken apart too, on a CPU.
        earlier: Measurements, the oldest first; the last one of this machine and backbone is gone on with, what it has
            is not measured again. None: a new one.
        keep: Called after each row with all that is measured so far.

    Raises:
        ValueError: If a loss, a workload or the device is unknown, `seconds` is not positive, or no earlier measurement
            is of this machine.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive; found {seconds}")
    for name in workloads:
        check_known("workload", name, WORKLOADS)
    if profile and device != "cpu":
        raise ValueError(f"--profile takes a step of the CPU apart; found --device {device}; leave one of them out")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device} is not there: torch {torch.__version__} sees no GPU; use --device cpu")
    losses_ = [*choices] or [Choice(name, {}) for name in losses.names()] + [
        Choice(name, {"variant": "official"}) for name in OFFICIAL
    ]
    reads = {str(choice): losses.build(choice.name, **choice.params).reads for choice in losses_}
    machine = describe(torch.device(device)) | {"threads": 1 if device == "cpu" else torch.get_num_threads()}
    known = None if earlier is None else _of_this_machine(earlier, machine, backbone)
    missing = [job for job in _jobs(losses_, workloads, scaling) if not (known and _has(known, *job, dense))]
    needed = {reads[str(choice)] for kind, _, choice in missing if kind == "step"}
    written = datetime.now(UTC).isoformat(timespec="seconds")
    found = known or Speed(written=written, backbone=backbone, environment=machine, probe=probe(device), rows=[])
    steps = _steps(needed, backbone, seconds, device)
    for kind, work, choice in missing:
        progress_console.print(f"{escape(str(choice))}: {work.name}", soft_wrap=True)
        row = SpeedRow(
            loss=str(choice), workload=kind, cells=work.cells, people=work.people, images=work.images,
            stride=work.stride, own=_cost(choice, work, device, seconds),
            dense=_dense_cost(choice, work, device, seconds) if dense and kind != "scaling" else None,
            network_ms=steps.get(reads[str(choice)]) if kind == "step" else None,
        )  # fmt: skip
        others = [one for one in found.rows if _key(one) != _key(row)]
        found = found.model_copy(update={"rows": [*others, row]})
        keep(found)
    for choice in losses_ if profile else ():
        if str(choice) not in {one.loss for one in found.profiles}:
            progress_console.print(f"{escape(str(choice))}: profile of a training step", soft_wrap=True)
            keep_freed()
            one = StepProfile(loss=str(choice), **profiled(choice, backbone, 2 * seconds)._asdict())
            found = found.model_copy(update={"profiles": [*found.profiles, one]})
            keep(found)
    return found


def _of_this_machine(earlier: Sequence[Speed], machine: Mapping[str, Any], backbone: str) -> Speed:
    """The last of some measurements that can be gone on with here."""
    for one in reversed(earlier):
        if (one.environment, one.backbone) == (machine, backbone):
            return one
    here = f"{machine['processor']}, {machine['device']}, backbone {backbone}"
    raise ValueError(
        f"nothing to resume: none of the store's {len(earlier)} measurements is of this machine with these versions "
        f"({here}); leave --resume out"
    )


def _key(row: SpeedRow) -> tuple[object, ...]:
    """What tells the rows of a measurement apart."""
    return row.loss, row.workload, row.cells, row.people, row.images, row.stride


def _has(known: Speed, kind: str, work: Workload, choice: Choice, dense: bool) -> bool:
    """Whether a measurement has a row, with its dense reference where that is asked for and there is one."""
    key = (str(choice), kind, work.cells, work.people, work.images, work.stride)
    rows = [row for row in known.rows if _key(row) == key]
    asked = dense and kind != "scaling" and reference(losses.build(choice.name, **choice.params), choice.name)
    return any(row.dense is not None or not asked for row in rows)


def _jobs(choices: Sequence[Choice], workloads: Sequence[str], scaling: bool) -> Iterator[tuple[str, Workload, Choice]]:
    for name in workloads:
        for choice in choices:
            yield name, WORKLOADS[name], choice
    for work in SCALING if scaling else ():
        for choice in choices:
            yield "scaling", work, choice


def _steps(reads: set[Reads], backbone: str, seconds: float, device: str) -> Mapping[str, float]:
    """Milliseconds of the network's own part of a step, for each kind of head that is needed.

    A network without a head of points stands in with its head of densities: the share is of a step of that size.
    """
    work = WORKLOADS["step"]
    side = work.cells * work.stride
    if device == "cpu":
        keep_freed()  # as a run has it
    steps: dict[str, float] = {}
    for kind in sorted(reads):
        head = kind if fits(backbone, reads=kind) is None else "density"
        steps[kind] = steps.get(head) or network_ms(backbone, head, side, work.images, 2 * seconds, device)
    return steps


def _cost(choice: Choice, work: Workload, device: str, seconds: float, dense: bool = False) -> Cost:
    """One measurement."""
    params: dict[str, Any] = dict(choice.params)
    found: Measured = measured(Job(choice.name, params, work, dense, device, seconds))
    return Cost(**found._asdict() | {"problem": printable(found.problem)[:500]})


def _dense_cost(choice: Choice, work: Workload, device: str, seconds: float) -> Cost | None:
    """That of the dense reference; None where these parameters have none."""
    found = reference(losses.build(choice.name, **choice.params), choice.name)
    if found is None:
        return None
    if found is DENSE["dm_count"] and work.people * work.cells**2 > _MOST_ENTRIES:
        return Cost(ms=None, problem="not measured: its rounds in the log domain would take minutes")
    return _cost(choice, work, device, seconds, dense=True)
