"""``mtlsk study check``: what a study file would run."""

from __future__ import annotations

import argparse

from mtlsk.cli.command import Command


class StudyCheck(Command):
    """Do nothing yet."""

    name = "check"
    summary = "say what a study file would run, and about how long"
    example = "mtlsk study check studies/quickstart.toml"

    def run(self, arguments: argparse.Namespace) -> int:
        """Do nothing yet."""
        return 0
