"""Where the next run of this machine goes: which device has room for one more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["CONTEXT", "SHARE", "Room"]

CONTEXT = 768.0
"""MiB that a process takes on a GPU beside its tensors: CUDA's context and libraries (ours, generous)."""
SHARE = 0.9
"""Part of a GPU's memory that runs are expected to fill at most (ours): the rest is for what is not foreseen."""


class _Run(NamedTuple):
    """A run that goes on: its device, whether it wants that for itself, and whether it ever shared it."""

    device: str
    alone: bool
    shared: bool


class Room:
    """Deals runs out to devices, to the one with the fewest first.

    On a GPU whose memory decides, the first run goes alone until it has trained and validated for one epoch. Others
    join while the memory that all are expected to need, and what other programs hold, is at most `SHARE` of it. A run
    is expected to need its tensors' highest so far and `CONTEXT`, but before its first epoch is over at least as much
    as any run of this study did. That is a forecast: a run that finds no memory beside others goes again, alone.

    Args:
        devices: What runs are dealt out to.
        each: The most runs on one device.
        by_memory: Whether memory decides as well.
    """

    def __init__(self, devices: Sequence[str], each: int, *, by_memory: bool) -> None:
        self.devices = tuple(devices)
        self.each = each
        self.by_memory = by_memory
        self._runs: dict[int, _Run] = {}
        self._needs: dict[int, float] = {}
        self._most: float | None = None
        self._sizes: dict[str, float] = {}

    def find(self, *, alone: bool = False) -> str | None:
        """The device for one more run, or None where it must wait.

        Args:
            alone: Whether it goes only where no other is.
        """
        fit = [device for device in self.devices if self._fits(device, alone)]
        return min(fit, key=lambda name: len(self._on(name))) if fit else None

    def enter(self, index: int, device: str, *, alone: bool = False) -> None:
        """Puts a run on a device; one that is to be alone keeps others away."""
        neighbours = self._on(device)
        for neighbour in neighbours:
            self._runs[neighbour] = self._runs[neighbour]._replace(shared=True)
        self._runs[index] = _Run(device, alone, bool(neighbours))

    def learn(self, index: int, memory: dict[str, Any]) -> None:
        """Takes what a run says of its GPU's memory; see `runners.environment.device_memory`.

        Args:
            index: The run.
            memory: MiB: `total` and `free` of the GPU, `held` and `peak` of the run's tensors; `settled` says whether
                the run has trained and validated.
        """
        device = self._runs[index].device
        if self._on(device) == [index]:  # what is not this run's is another program's
            others = max(0.0, memory["total"] - memory["free"] - memory["held"] - CONTEXT)
            self._sizes[device] = memory["total"] - others
        if memory["settled"]:
            self._needs[index] = memory["peak"] + CONTEXT
            self._most = max(self._most or 0.0, self._needs[index])

    def leave(self, index: int) -> bool:
        """Takes a run out that has ended; says whether it ever shared its device."""
        self._needs.pop(index, None)
        return self._runs.pop(index).shared

    def _on(self, device: str) -> list[int]:
        """The runs on a device."""
        return [index for index, run in self._runs.items() if run.device == device]

    def _fits(self, device: str, alone: bool) -> bool:
        """Whether a device has room for one more run."""
        runs = self._on(device)
        if not runs:
            return True
        if alone or len(runs) >= self.each or any(self._runs[index].alone for index in runs):
            return False
        if not self.by_memory:
            return True
        if self._most is None or device not in self._sizes:
            return False
        expected = sum(self._needs.get(index, self._most) for index in runs) + self._most
        return expected <= SHARE * self._sizes[device]
