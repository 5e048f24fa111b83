"""`benchmark list`, `status` and `doctor`: what there is."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_store"]


def add_store(commands: Commands) -> None:
    """Adds `list`, `status` and `doctor`."""
    listing = command(commands, "list", "benchmark.inspect:list_things", "list the runs of a store, or what there is")
    things = ("runs", "losses", "backbones", "datasets", "localizers", "noises", "studies", "recipes")
    listing.add_argument("what", nargs="?", default="runs", choices=things)
    status = command(commands, "status", "benchmark.inspect:status", "how many runs are done, failed, unfinished")
    for each in (listing, status):
        each.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        each.add_argument("--json", action="store_true", help="for machines")
    doctor = command(commands, "doctor", "benchmark.inspect:doctor", "check this machine: versions, devices, data")
    doctor.add_argument("--data-root", type=Path, help="folder of the datasets")
    doctor.add_argument("--json", action="store_true", help="for machines")
