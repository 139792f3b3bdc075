"""``mtlsk study init``: a study file for a table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mtlsk.cli.command import Command


class StudyInit(Command):
    """Print a study file for a CSV or Parquet table."""

    name = "init"
    summary = "print a study file for a table"
    example = "mtlsk study init my.csv --targets price demand > my.toml"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("data", metavar="DATA", help="table (.csv, .csv.gz, .tsv, .parquet)")
        parser.add_argument(
            "--targets",
            nargs="+",
            required=True,
            metavar="T",
            help="column names, or how many are last",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the file."""
        print(study_file(arguments.data, arguments.targets))
        return 0


def study_file(path: str, words: list[str]) -> str:
    """Return the text of a study file for a table and its targets."""
    from mtlsk.datasets import load_table

    targets: Any = words
    if len(targets) == 1 and targets[0].isdigit():
        targets = int(targets[0])
    table = load_table(path, targets)
    stem = Path(path).name.split(".")[0]
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    name = plain.lstrip("._-") or "study"
    beyond = len(table.target_names) > 3
    objectives = '["mean", "worst"]' if beyond else '"task_losses"'
    alternative = '"task_losses"' if beyond else '["mean", "worst"]'
    return f"""\
# {len(table.data)} rows, {len(table.feature_names)} features, {len(table.target_names)} targets.
# A study file can name code (module:Class): trust it like code.

[study]
name = {json.dumps(name)}
objectives = {objectives}           # or {alternative}, or names from `mtlsk list scorers`
trials = 60                         # of the search, and as many of the baseline

[data]
path = {json.dumps(path)}
targets = {json.dumps(table.target_names, ensure_ascii=False)}
split = "random"                    # "blocked" where neighbouring rows are alike; "group:COLUMN"
scale_X = true
scale_y = true

[estimator]                         # keyword arguments of MultiTaskRegressor
hidden_layer_sizes = [64, 64]
max_epochs = 60
batch_size = 64

[search]                            # choices, {{ low = ..., high = ... }}, or {{}}: its own domain
aggregator = ["ConicGrad", "CAGrad", "MGDA"]
aggregator__c = {{}}
task_scale = {{ simplex = true }}
lr = {{ low = 1e-3, high = 3e-2, log = true }}"""
