"""`benchmark results`: recorded studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.options.parser import Commands, Parser, command

__all__ = ["add_results"]

_RESULTS = """A recorded study is a folder of small files for git: study.json, runs.jsonl, history.parquet,
images.parquet and summary.csv. Weights are no part of it.

examples:
  benchmark results export noise -o runs --where dataset=shanghaitech_b --author "Our lab"
  benchmark results check results/studies/noise
  benchmark results merge ours/noise theirs/noise --into results/studies/noise-both
  benchmark results import results/studies/noise-both -o runs"""


def add_results(commands: Commands) -> None:
    """Adds `results` with its actions."""
    text = "record studies under version control, and put those of several labs together"
    results = commands.add_parser(
        "results", help=text, description=text[0].upper() + text[1:] + ".", epilog=_RESULTS,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    actions = results.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    place = Path("results/studies")
    export = command(actions, "export", "benchmark.recorded:export", "write runs of a store as a recorded study")
    export.add_argument("name", metavar="NAME", help="of the study, and of its folder")
    export.add_argument("--to", type=Path, default=place, metavar="FOLDER", help=f"it goes to FOLDER/NAME ({place})")
    export.add_argument(
        "--where", action="extend", nargs="+", default=[], metavar="FIELD=VALUE",
        help="only runs with a row like this; they are recorded whole, with all their evaluations",
    )  # fmt: skip
    export.add_argument("--skip-unreadable", action="store_true", help="leave out runs that cannot be read")
    take = command(actions, "import", "benchmark.recorded:import_study", "write the runs of a study into a store")
    take.add_argument("folder", type=Path, metavar="FOLDER", help="the study")
    merge = command(actions, "merge", "benchmark.recorded:merge", "put studies together that are comparable")
    merge.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="the studies")
    merge.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder of the new study")
    merge.add_argument("--name", help="of the new study (default: the name of its folder)")
    merge.add_argument("--allow-identical", action="store_true", help="take a run that is the same in several once")
    listing = command(actions, "list", "benchmark.recorded:list_studies", "list the recorded studies below a folder")
    listing.add_argument("folder", type=Path, nargs="?", default=place, metavar="FOLDER", help=f"default: {place}")
    check = command(actions, "check", "benchmark.recorded:check", "recompute a study's numbers from its images")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="the study")
    for each in (export, merge):
        each.add_argument("--title", default="", help="what it is about")
        each.add_argument("--author", default="", help="by whom")
        each.add_argument("--without-windows", action="store_false", dest="windows", help="drop the 64-px windows")
        each.add_argument("--force", action="store_true", help="replace the study that lies there")
    for each in (export, take):
        each.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
    for each in (export, take, merge, listing, check):
        each.add_argument("--json", action="store_true", help="for machines")
