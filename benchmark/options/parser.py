"""What all commands share: a parser that suggests, and the form of a command."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn, TypeAlias

from losses.discovery import suggestion

__all__ = ["Commands", "Parser", "command"]


class Parser(argparse.ArgumentParser):
    """Adds what was probably meant to the error of a misspelt command or value."""

    gathers: str | None = None
    """A list of words that may go on behind options; argparse before Python 3.13 refuses those."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Puts words behind options into the list that gathers them."""
        found, rest = super().parse_known_args(args, namespace)
        if rest and self.gathers is not None:
            words = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
            getattr(found, self.gathers).extend(rest[:words])
            rest = rest[words:]
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Prints the usage, the message and a suggestion."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)", message)
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if wrong:
            message += suggestion(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        elif unknown:
            message += suggestion(unknown[1], self._all_options() - {unknown[1]})  # it may be another command's
        super().error(message)

    def _all_options(self) -> set[str]:
        """The options of this parser and of its commands: a command's own are checked by the parser above it."""
        found = {option for action in self._actions for option in action.option_strings}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found |= parser._all_options()
        return found


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where a command is added."""


def command(commands: Commands, name: str, action: str, text: str, epilog: str = "") -> Parser:
    """Adds a command; `action` is `module:function`, imported when it is given, and `text` begins in lower case."""
    made = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(action=action)
    return made
