"""Where the next run of this machine goes: which device has room for one more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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

    Of several such GPUs the one with the most memory to expect is chosen, once it is known of all. One whose memory was
    too little for a run alone is left to others.

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

    def find(self, *, alone: bool = False, small: Collection[str] = ()) -> str | None:
        """The device for one more run, or None where it must wait.

        Args:
            alone: Whether it goes only where no other is.
            small: Devices that had too little memory for it alone, and those that are no larger.
        """
        fit = [device for device in self.devices if not self._below(device, small) and self._fits(device, alone)]
        return min(fit, key=self._rank) if fit else None

    def another(self, device: str, *, shared: bool) -> bool:
        """Whether a run that found too little memory on a device may go again: alone there, or on a larger one."""
        return shared or not self.hopeless((device,))

    def hopeless(self, small: Collection[str]) -> bool:
        """Whether there is no device but those that were too small, and those that are no larger."""
        return all(self._below(device, small) for device in self.devices)

    def _below(self, device: str, small: Collection[str]) -> bool:
        """Whether a device is one of those that were too small, or is known to have no more memory than one of them."""
        sizes = self._sizes
        return device in small or any(
            device in sizes and other in sizes and sizes[device] <= 1.05 * sizes[other] for other in small
        )

    def _rank(self, device: str) -> tuple[float, int]:
        """The most memory to expect first, where it decides and is known of all devices; then the fewest runs."""
        runs = self._on(device)
        if not self.by_memory or set(self.devices) - set(self._sizes):
            return 0.0, len(runs)
        taken = sum(self._needs.get(index, self._most or 0.0) for index in runs)
        return taken - self._sizes[device], len(runs)

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

    def leave(self, index: int) -> tuple[str, bool]:
        """Takes a run out that has ended; says where it was, and whether it ever shared that device."""
        self._needs.pop(index, None)
        run = self._runs.pop(index)
        return run.device, run.shared

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
