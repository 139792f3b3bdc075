"""``mtlsk fit``, ``mtlsk predict`` and ``mtlsk certify``: from a table to predictions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtlsk.cli.command import Command
from mtlsk.cli.signals import go_on
from mtlsk.cli.terminal import print_json, table

if TYPE_CHECKING:
    from mtlsk.tablemodel import TableModel

MODEL = "model file (.pkl, .joblib: open only your own; .skops)"
DATA = "table (.csv, .csv.gz, .tsv, .parquet)"


class Fit(Command):
    """Fit a net to a table and say what it is worth on rows it has not seen.

    A quarter of the rows is held out, unless --split none; numbers are standardised, text is
    one-hot encoded, empty cells are imputed, rows may lack labels. --set gives parameters of
    MultiTaskRegressor: words, numbers, or TOML such as '[64, 64]'. --study takes [data] and
    [estimator] of a study file instead, or under DATA and --set.
    """

    name = "fit"
    summary = "fit a net to a table"
    example = "mtlsk fit my.csv --targets price demand --set aggregator=ConicGrad --save my.pkl"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("data", metavar="DATA", nargs="?", help=DATA)
        parser.add_argument(
            "--targets", nargs="+", metavar="T", help="column names, or how many are last"
        )
        parser.add_argument("--drop", nargs="+", metavar="C", help="columns that are no features")
        parser.add_argument("--study", metavar="FILE", help="study file; it is trusted like code")
        parser.add_argument(
            "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter"
        )
        parser.add_argument(
            "--split",
            metavar="S",
            help="random (default), blocked (neighbouring rows are alike), group:COLUMN, "
            "column:NAME, or none: all rows train",
        )
        parser.add_argument("--save", metavar="MODEL", help="file to write: .pkl, .joblib, .skops")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        parser.set_defaults(seed=0)
        parser.add_argument("--seed", type=int, metavar="N", help="of split and training (0)")

    def run(self, arguments: argparse.Namespace) -> int:
        """Fit, measure, save."""
        from mtlsk.fitting import fit_and_measure, load_source
        from mtlsk.tablefile import check_writable

        if arguments.save:
            check_writable(arguments.save)
        source = load_source(
            data=arguments.data,
            targets=arguments.targets,
            drop=arguments.drop,
            study=arguments.study,
            split=arguments.split,
            settings=arguments.set,
            seed=arguments.seed,
        )
        model, losses = fit_and_measure(source)
        go_on()
        if arguments.save:
            model.save(arguments.save)
        if arguments.json:
            print_json(
                {
                    "model": arguments.save,
                    "split": source.split,
                    "rows": source.n_rows,
                    "params": source.params,
                    "held_out": None if losses is None else losses.to_dict("index"),
                }
            )
            return 0
        print(source.sentence())
        if losses is not None:
            _print_losses(losses)
        if arguments.save:
            print(f"saved {arguments.save}; mtlsk predict {arguments.save} DATA")
        return 0


class Predict(Command):
    """Predict the targets of a table's rows, in their own units, as CSV.

    The table needs the columns that the model was trained with, in any order; others are left
    aside, empty cells imputed as in training.
    """

    name = "predict"
    summary = "predictions of a saved model for a table"
    example = "mtlsk predict my.pkl new.csv --out predictions.csv"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("model", metavar="MODEL", help=MODEL)
        parser.add_argument("data", metavar="DATA", help=DATA)
        parser.add_argument("--out", metavar="FILE", help="file to write: .csv, .tsv, .parquet")
        parser.add_argument(
            "--keep", nargs="+", default=[], metavar="C", help="columns of DATA to put before"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Predict and write."""
        import pandas as pd

        from mtlsk.datasets import read_table, write_table
        from mtlsk.tablefile import check_writable

        if arguments.out:
            check_writable(arguments.out, (".csv", ".tsv", ".parquet"))
        model, frame = _load(arguments.model), read_table(arguments.data)
        for name in arguments.keep:
            if name not in frame:
                raise ValueError(f"--keep {name}: {arguments.data} has no such column")
        found = pd.concat([frame[arguments.keep], model.predict(frame)], axis=1)
        if arguments.out:
            write_table(found, arguments.out)
        else:
            found.to_csv(sys.stdout, index=False)
        return 0


class Certify(Command):
    """Say what the task gradients of a saved model tell on a table with targets.

    Which targets conflict, whether fixed weights are enough, what to try: as mtlsk.certify does.
    """

    name = "certify"
    summary = "conflicts and certificates of a saved model on a table"
    example = "mtlsk certify my.pkl my.csv --json"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("model", metavar="MODEL", help=MODEL)
        parser.add_argument("data", metavar="DATA", help=f"{DATA}, with the targets' columns")
        parser.add_argument("--curvature", action="store_true", help="also what needs the Hessian")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the report."""
        from mtlsk.datasets import read_table

        model, frame = _load(arguments.model), read_table(arguments.data)
        report = model.certify(frame, curvature=arguments.curvature)
        if not arguments.json:
            print(report)
            return 0
        print_json(
            {
                "rows": report.n_rows,
                "tasks": report.tasks.to_dict("index"),
                "cosines": report.cosines.to_dict("index"),
                "certificates": report.to_frame().to_dict("index"),
                "findings": [
                    {"topic": f.topic, "sentence": f.sentence, "params": f.params}
                    for f in report.findings
                ],
            }
        )
        return 0


def _load(path: str) -> TableModel:
    from mtlsk.tablemodel import TableModel

    return TableModel.load(Path(path))


def _print_losses(losses: Any) -> None:
    rows = [[i, r["rows"], r["mse"], r["mse of the mean"], r["r2"]] for i, r in losses.iterrows()]
    rows = [[name, int(n), *values] for name, n, *values in rows]
    print(table(["target", "rows", "mse", "of the mean", "R2"], rows))
    print(f"mean R2 {losses['r2'].mean():.4g}; 'of the mean' is the mse of predicting the mean")
