"""`benchmark speed`: what losses cost."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_speed"]

_EPILOG = """examples:
  benchmark speed                                  every loss, three sizes (some minutes)
  benchmark speed --losses pml bl --workloads large
  benchmark speed --losses gl[scaling=0.7] --no-reference --json
  benchmark speed --scaling --no-reference         exponents over people and cells
  benchmark speed --workloads step --profile       where the time of a training step goes

The dense reference is the same mathematics with matrices of points x cells, measured in the same call. Let nothing else
run on the machine."""


def add_speed(commands: Commands) -> None:
    """Adds `speed`."""
    speed = command(commands, "speed", "benchmark.speed.command:speed", "measure what the losses cost", epilog=_EPILOG)
    speed.add_argument(
        "--losses", nargs="+", default=[], metavar="LOSS",
        help="names, parameters in brackets (default: all, dm_count in both variants)",
    )  # fmt: skip
    speed.add_argument(
        "--workloads", nargs="+", default=["step", "batch", "dense"], metavar="SIZE",
        help="step: 256-px crops, 300 people, batch 8; batch: 512-px crops, 300, batch 8; dense: one of 2000; large: "
        "256x256 cells, 5000 (default: the first three)",
    )  # fmt: skip
    speed.add_argument("--device", default="cpu", help="cpu (one thread) or cuda (default: cpu)")
    speed.add_argument("--backbone", default="mcnn", help="network whose training step the loss is a share of")
    speed.add_argument("--seconds", type=float, default=2.0, help="how long each measurement repeats (default: 2)")
    speed.add_argument("--no-reference", action="store_true", help="leave the dense references out")
    speed.add_argument("--scaling", action="store_true", help="vary people and cells, too")
    speed.add_argument(
        "--profile", action="store_true", help="also where the time of a training step goes, and that of each loss"
    )
    speed.add_argument("-o", "--output", type=Path, default=Path("runs"), help="store that keeps it (default: runs)")
    speed.add_argument("--resume", action="store_true", help="go on with the store's last measurement of this machine")
    speed.add_argument("--json", action="store_true", help="print everything that was measured")
