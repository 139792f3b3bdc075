"""A command of the command line: a class whose docstring is its help."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line and whose help keeps its line breaks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; try {self.prog} --help\n")


class Command:
    """One command. Subclasses import what is heavy inside :meth:`run`.

    Attributes
    ----------
    name : str
        The word on the command line.
    summary : str
        What the list of commands says of it.
    example : str
        A whole command line that works.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    example: ClassVar[str]

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""
        raise NotImplementedError

    def add_to(self, commands: Any) -> None:
        """Add the command to the subparsers of its group."""
        text = f"{inspect.getdoc(type(self))}\n\nexample: {self.example}"
        parser = commands.add_parser(self.name, help=self.summary, description=text)
        self.arguments(parser)
        parser.set_defaults(run=self.run)


def add_group(commands: Any, name: str, summary: str, members: Sequence[Command]) -> None:
    """Add a word that only groups others: ``mtlsk study run``."""
    group = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    actions = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    for member in members:
        member.add_to(actions)


def positive(text: str) -> int:
    """Read a number from 1; what argparse says otherwise names the argument."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not allowed; give a number from 1")
    return number
