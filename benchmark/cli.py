"""The command line. Only the standard library is imported here: `benchmark --help` answers at once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from losses.discovery import suggestion

__all__ = ["main"]

_DESCRIPTION = "Compare crowd-counting losses on the same terms. `benchmark run` alone takes about five minutes."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; errors that a user can mend are printed as one line, without a traceback.

    Returns:
        0 on success, 1 if runs failed or findings are errors, 2 if the command could not be carried out, 130 after
        Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(words)
    if options.version:
        from importlib.metadata import version

        print(version("crowd-loss-benchmark"))  # noqa: T201
        return 0
    if options.action is None:
        parser.print_help()
        return 0
    options.command_line = "benchmark " + " ".join(words)
    module, _, function = options.action.partition(":")
    try:
        action: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
        return action(options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        return 0
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"benchmark: {error}", file=sys.stderr)  # noqa: T201
        return 2


class _Parser(argparse.ArgumentParser):
    """Adds what was probably meant to the error of a misspelt command or value."""

    def error(self, message: str) -> NoReturn:
        """Prints the usage, the message and a suggestion."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)", message)
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if wrong:
            message += suggestion(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        elif unknown:
            message += suggestion(unknown[1], self._all_options())
        super().error(message)

    def _all_options(self) -> set[str]:
        """The options of this parser and of its commands: a command's own are checked by the parser above it."""
        found = {option for action in self._actions for option in action.option_strings}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found |= parser._all_options()
        return found


def _parser() -> _Parser:
    parser = _Parser(prog="benchmark", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.set_defaults(action=None)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_store(commands)
    _add_data(commands)
    _add_doctor(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, action: str, text: str, epilog: str = ""
) -> _Parser:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(action=action)
    return command


_EXAMPLES = """examples:
  benchmark run
  benchmark run --losses pml bl dm_count --backbones mobilenetv2 --datasets shanghaitech_b \\
                --data-root ~/data --weights mobilenetv2_100.safetensors --seeds 0 1 2 -j 2
  benchmark run --losses 'pml[count_norm=l2,tau=2]' pml --noise none uniform-px:8
  benchmark run --study table4 --data-root ~/data --dry-run"""


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    for name, text in (
        ("run", "train every combination of losses, networks, data, noise and seeds"),
        ("plan", "show what `run` would do, and do nothing"),
    ):
        run = _command(commands, name, "benchmark.run:run", text, _EXAMPLES if name == "run" else "")
        run.usage = f"benchmark {name} [options]"
        run.set_defaults(dry_run=name == "plan")
        axes = run.add_argument_group("what is compared (each replaces that axis of the study)")
        axes.add_argument("--study", default=None, help="a built-in study or a YAML file (default: quick)")
        axes.add_argument("--losses", nargs="+", metavar="LOSS", help="names, parameters in brackets: pml[tau=2]")
        axes.add_argument("--backbones", nargs="+", metavar="NET", help="names, or timm:NAME")
        axes.add_argument("--datasets", nargs="+", metavar="DATA", help="names, parameters in brackets")
        axes.add_argument(
            "--noise", nargs="+", metavar="NOISE", dest="noises", help="none, uniform-px:8, missing:0.1, ..."
        )
        axes.add_argument("--seeds", nargs="+", type=int, metavar="N", help="of initialisation, order and crops")
        axes.add_argument("--noise-seed", type=int, metavar="N", help="of the wrong labels, shared by all losses (0)")
        axes.add_argument("--head", help="counting head: bl, pml, points, native")
        axes.add_argument("--stride", type=int, help="pixels per density cell")
        axes.add_argument("--weights", help="imagenet, none, or a file of pretrained features")
        axes.add_argument(
            "--select", nargs="+", choices=("val", "last", "test_oracle"), dest="selections",
            help="which epoch's weights are measured (default: val)",
        )  # fmt: skip
        recipe = run.add_argument_group("how it is trained")
        recipe.add_argument("--recipe", choices=("shared", "official", "tuned"), help="see `benchmark list recipes`")
        recipe.add_argument("--budget", type=int, metavar="N", help="trials of the tuned recipe, for every loss (9)")
        recipe.add_argument("--epochs", type=int, metavar="N", help="passes over the training images (shared: 100)")
        recipe.add_argument("--batch-size", type=int, metavar="N", help="crops a step (shared: 8)")
        recipe.add_argument("--crop", type=int, metavar="PX", help="side of a training crop (shared: 256)")
        recipe.add_argument(
            "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="random scale (shared: 0.75 1.33)"
        )
        recipe.add_argument("--lr", type=float, help="peak learning rate (shared: 1e-4)")
        recipe.add_argument("--backbone-lr", type=float, metavar="X", help="as a multiple of --lr")
        recipe.add_argument("--weight-decay", type=float, metavar="X", help="(shared: 1e-4)")
        recipe.add_argument("--optimizer", choices=("adam", "adamw"), help="(shared: adamw)")
        recipe.add_argument(
            "--schedule", choices=("constant", "cosine", "exponential"), help="after 5 %% of warm-up (shared: cosine)"
        )
        recipe.add_argument("--val-interval", type=int, metavar="N", help="epochs between validations")
        here = run.add_argument_group("where")
        here.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        here.add_argument("--data-root", type=Path, help="folder of the datasets (default: $CROWD_DATA, ./data)")
        here.add_argument("--cache-dir", type=Path, help="folder of prepared images (default: $CROWD_CACHE, ~/.cache)")
        if name == "plan":
            run.add_argument("--json", action="store_true", help="for machines")
            continue
        here.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        here.add_argument("-j", "--jobs", type=int, help="runs at once (default: one a core, or one a GPU)")
        here.add_argument("--threads", type=int, default=1, help="CPU threads of each run (default: 1)")
        here.add_argument("--workers", type=int, default=None, help="data-loading processes of each run")
        here.add_argument("--tracker", choices=("tensorboard", "wandb", "mlflow"), help="log there as well")
        run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
        run.add_argument(
            "--resume", action=argparse.BooleanOptionalAction, default=True,
            help="go on with interrupted runs from their last checkpoint (default), or start them afresh",
        )  # fmt: skip
        run.add_argument("--retry-failed", action="store_true", help="try failed runs again")
        run.add_argument("--json", action="store_true", help="print the resulting table for machines")


def _add_store(commands: argparse._SubParsersAction[_Parser]) -> None:
    listing = _command(commands, "list", "benchmark.inspect:list_things", "list the runs of a store, or what there is")
    things = ("runs", "losses", "backbones", "datasets", "noises", "studies", "recipes")
    listing.add_argument("what", nargs="?", default="runs", choices=things)
    status = _command(commands, "status", "benchmark.inspect:status", "how many runs are done, failed, unfinished")
    for command in (listing, status):
        command.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        command.add_argument("--json", action="store_true", help="for machines")


def _add_data(commands: argparse._SubParsersAction[_Parser]) -> None:
    data = commands.add_parser("data", help="look at datasets", description="Look at datasets.")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    listing = _command(actions, "list", "benchmark.datasets:list_datasets", "where to get each dataset, what is found")
    check = _command(actions, "check", "benchmark.datasets:check", "verify a dataset's files, and draw its points")
    check.add_argument("dataset", help="name, parameters in brackets")
    check.add_argument("--overlay", type=Path, help="where to draw images with their points (default: check_NAME.png)")
    export = _command(actions, "export", "benchmark.datasets:export", "write synthetic crowds as image and JSON files")
    export.add_argument("dataset", help="synthetic, parameters in brackets")
    export.add_argument("folder", type=Path, help="where to")
    export.set_defaults(data_root=None)
    for command in (listing, check):
        command.add_argument("--data-root", "--root", type=Path, dest="data_root", help="folder of the datasets")
        command.add_argument("--json", action="store_true", help="for machines")


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = _command(commands, "doctor", "benchmark.inspect:doctor", "check this machine: versions, devices, data")
    doctor.add_argument("--data-root", type=Path, help="folder of the datasets")
    doctor.add_argument("--json", action="store_true", help="for machines")


if __name__ == "__main__":
    sys.exit(main())
