"""``mtlsk list`` and ``mtlsk completion``."""

from __future__ import annotations

import argparse

from mtlsk.cli.command import Command

LISTS = ("aggregators", "controllers", "engines", "optimizers", "regularizers", "scorers", "data")
SHELLS = ("bash", "zsh", "tcsh")


class List(Command):
    """Print what there is of a kind, with a sentence each and its parameters and their domains."""

    name = "list"
    summary = "what there is, with its parameters"
    example = "mtlsk list aggregators"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("kind", choices=LISTS, metavar=" | ".join(LISTS))
        parser.add_argument(
            "--markdown",
            action="store_true",
            help="a table, of aggregators, controllers or engines",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the members of a kind."""
        from mtlsk.catalogue import as_markdown, as_text

        print(as_markdown(arguments.kind) if arguments.markdown else as_text(arguments.kind))
        return 0


class Completion(Command):
    """Print a script that completes mtlsk's commands and options in a shell.

    For bash: mtlsk completion bash > ~/.local/share/bash-completion/completions/mtlsk
    For zsh, a file _mtlsk in a folder of $fpath; for tcsh, source it in ~/.tcshrc.
    """

    name = "completion"
    summary = "a completion script for a shell"
    example = "mtlsk completion bash"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("shell", choices=SHELLS, metavar=" | ".join(SHELLS))

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the script."""
        import shtab

        print(shtab.complete(arguments.root, shell=arguments.shell))
        return 0
