"""The command line. Only the standard library is imported here: `benchmark --help` answers at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from benchmark.options import data, explain, predict, report, results, run, speed, store
from benchmark.options.parser import Parser

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
    from results.atomic import printable
    from results.redact import redacted, redacted_words

    options.command_line = redacted_words(["benchmark", *words])
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
        said = printable(redacted(_said(error)), keep="\n")
        print(f"benchmark: {said}", file=sys.stderr)  # noqa: T201
        return 2


def _said(error: BaseException) -> str:
    """The message; of the system's own errors the path and what is wrong with it, without their number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        other = "" if error.filename2 is None else f" -> {error.filename2}"
        return f"{error.filename}{other}: {error.strerror.lower()}"
    return str(error)


def _parser() -> Parser:
    parser = Parser(prog="benchmark", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.set_defaults(action=None)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    run.add_run(commands)
    report.add_report(commands)
    explain.add_explain(commands)
    predict.add_predict(commands)
    predict.add_evaluate(commands)
    data.add_data(commands)
    results.add_results(commands)
    speed.add_speed(commands)
    store.add_store(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
