"""`benchmark speed`: measures, prints, and keeps what was measured in a store."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from rich.markup import escape

import losses
from benchmark.names import Choice, split_choices
from benchmark.show import console, progress_console
from benchmark.speed.dense import reference
from benchmark.speed.measure import Job, Measured, measured, network_ms
from benchmark.speed.probe import probe
from benchmark.speed.workloads import SCALING, WORKLOADS, Workload
from losses.discovery import check_known
from reports.page import Part
from reports.render import terminal
from reports.speed import speed_part
from reports.style import looks
from results.atomic import printable
from results.speed import Cost, Speed, SpeedRow, write
from runners.backbones import Reads, fits
from runners.environment import describe

__all__ = ["measure", "speed"]

_OFFICIAL = {"dm_count": {"variant": "official"}}
"""Parameters of the losses that are measured when none are named: those for which there is a dense reference."""


def speed(options: argparse.Namespace) -> int:
    """Carries out the command.

    Raises:
        ValueError: If a loss, a workload or the device is unknown, or a number out of range.
    """
    found = measure(
        split_choices(options.losses),
        options.workloads,
        device=options.device,
        backbone=options.backbone,
        seconds=options.seconds,
        dense=not options.no_reference,
        scaling=options.scaling,
    )
    path = write(options.output, found)
    if options.json:
        print(found.model_dump_json(indent=1))  # noqa: T201
        return 0
    for table in part_of([found]).tables:
        console.print(terminal(table, console.width))
        console.print()
    progress_console.print(f"kept in {escape(str(path))}; `benchmark report` reads it", soft_wrap=True)
    return 0


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
) -> Speed:
    """Measures losses on workloads, one after the other: nothing else should run on the machine.

    Args:
        choices: Losses with parameters; by default all, DM-Count in its official variant.
        workloads: Names of `benchmark.speed.workloads.WORKLOADS`.
        device: As torch names it. On the CPU one thread is used.
        backbone: Of the training step that the workload `step` is a share of.
        seconds: How long each measurement repeats.
        dense: Whether the dense references are measured too.
        scaling: Whether points and cells are varied too, for exponents.

    Raises:
        ValueError: If a loss, a workload or the device is unknown, or `seconds` is not positive.
    """
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive; found {seconds}")
    for name in workloads:
        check_known("workload", name, WORKLOADS)
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {device} is not there: torch {torch.__version__} sees no GPU; use --device cpu")
    losses_ = [*choices] or [Choice(name, dict(_OFFICIAL.get(name, {}))) for name in losses.names()]
    reads = {str(choice): losses.build(choice.name, **choice.params).reads for choice in losses_}
    machine = describe(torch.device(device)) | {"threads": 1 if device == "cpu" else torch.get_num_threads()}
    able = probe(device)
    steps = _steps(set(reads.values()), backbone, seconds, device) if "step" in workloads else {}
    rows = []
    for kind, work, choice in _jobs(losses_, workloads, scaling):
        progress_console.print(f"{escape(str(choice))}: {work.name}", soft_wrap=True)
        rows.append(
            SpeedRow(
                loss=str(choice), workload=kind, cells=work.cells, people=work.people, images=work.images,
                stride=work.stride, own=_cost(choice, work, device, seconds),
                dense=_dense_cost(choice, work, device, seconds) if dense and kind != "scaling" else None,
                network_ms=steps.get(reads[str(choice)]) if kind == "step" else None,
            )
        )  # fmt: skip
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return Speed(written=written, backbone=backbone, environment=machine, probe=able, rows=rows)


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
    if reference(losses.build(choice.name, **choice.params), choice.name) is None:
        return None
    return _cost(choice, work, device, seconds, dense=True)
