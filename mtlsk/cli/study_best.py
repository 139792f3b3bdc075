"""``mtlsk study best``: the trial of the front that a preference asks for."""

from __future__ import annotations

import argparse

from mtlsk.cli.command import Command


class StudyBest(Command):
    """Do nothing yet."""

    name = "best"
    summary = "choose from the front by preference, and save the model"
    example = "mtlsk study best runs/quickstart --preference 0.2,0.8 --save best.pkl"

    def run(self, arguments: argparse.Namespace) -> int:
        """Do nothing yet."""
        return 0
