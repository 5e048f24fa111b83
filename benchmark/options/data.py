"""`benchmark data`: a look at datasets."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, Parser, command

__all__ = ["add_data"]

_LEVELS = ("uniform-px:4", "uniform-px:8", "uniform-px:16", "missing:0.1", "duplicate:0.1")
_NOISE = """The labels are those that a run with the same noise and --noise-seed trains on. Label sensitivity (ours) is
how far they move each loss at the true density; see runners/sensitivity.py.

example:
  benchmark data noise synthetic --noise uniform-px:4 uniform-px:8 missing:0.1 --losses pml bl"""


def add_data(commands: Commands) -> None:
    """Adds `data` with its actions."""
    data = commands.add_parser("data", help="look at datasets", description="Look at datasets.")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    listing = command(actions, "list", "benchmark.datasets:list_datasets", "where to get each dataset, what is found")
    check = command(actions, "check", "benchmark.datasets:check", "verify a dataset's files, and draw its points")
    check.add_argument("dataset", help="name, parameters in brackets")
    check.add_argument("--overlay", type=Path, help="where to draw images with their points (default: check_NAME.png)")
    export = command(actions, "export", "benchmark.datasets:export", "write synthetic crowds as image and JSON files")
    export.add_argument("dataset", help="synthetic, parameters in brackets")
    export.add_argument("folder", type=Path, help="where to")
    export.set_defaults(data_root=None)
    noise = _add_noise(actions)
    for each in (listing, check, noise):
        each.add_argument("--data-root", "--root", type=Path, dest="data_root", help="folder of the datasets")
        each.add_argument("--json", action="store_true", help="for machines")


def _add_noise(actions: Commands) -> Parser:
    """Adds `data noise`."""
    noise = command(
        actions,
        "noise",
        "benchmark.noise_preview:preview",
        "what noise levels mean, before anything is trained",
        _NOISE,
    )
    noise.add_argument("dataset", help="name, parameters in brackets")
    noise.add_argument(
        "--noise", nargs="+", default=list(_LEVELS), metavar="NOISE",
        help=f"kind:level, combined with +, see `benchmark list noises` (default, ours: {' '.join(_LEVELS)})",
    )  # fmt: skip
    noise.add_argument("--losses", nargs="+", metavar="LOSS", help="names, parameters in brackets (default: all)")
    noise.add_argument("--images", type=int, metavar="N", help="images for the labels, evenly spread (default: all)")
    noise.add_argument("--crops", type=int, default=32, metavar="N", help="crops for the losses (default: 32)")
    noise.add_argument(
        "--crop", type=int, metavar="PX", help="their side (default: 256, less where images are smaller)"
    )
    noise.add_argument("--stride", type=int, default=8, help="pixels per density cell (default: 8)")
    noise.add_argument(
        "--sigma", default="8", metavar="PX", help="width of a head in the true density, or dots (default: 8)"
    )
    noise.add_argument("--noise-seed", type=int, default=0, help="as in a run (default: 0)")
    noise.add_argument("--split", default="train", choices=("train", "val", "test"), help="(default: train)")
    noise.add_argument("--cache-dir", type=Path, help="folder of prepared images (default: $CROWD_CACHE, ~/.cache)")
    noise.add_argument("--to", type=Path, metavar="FOLDER", help="where figures go (default: noise_NAME)")
    return noise
