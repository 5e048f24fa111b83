"""`benchmark data`: a look at datasets."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_data"]


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
    for each in (listing, check):
        each.add_argument("--data-root", "--root", type=Path, dest="data_root", help="folder of the datasets")
        each.add_argument("--json", action="store_true", help="for machines")
