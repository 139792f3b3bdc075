"""``mtlsk scalarization-limits``: what linear scalarization can and cannot reach on a table."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mtlsk.cli.command import Command, positive
from mtlsk.cli.terminal import print_json, table

if TYPE_CHECKING:
    from mtlsk.limits import Limits

PICTURES = (".png", ".svg", ".pdf")


class ScalarizationLimits(Command):
    """Say whether weighted sums of the losses reach every trade-off of linear models of a rank.

    The models predict all targets from the same q linear features. Ranks 1, K - 1 and K of K
    targets are decided by a theorem, others by a search, whose answer is no proof. The balanced
    model, with the smallest largest error, is compared with what no task weights, but a draw among
    a few weighted models, reaches. All rows are used, numbers standardised, text one-hot encoded,
    empty cells of features imputed; a target must have every label. Errors are mean squared, of
    targets with variance 1.
    """

    name = "scalarization-limits"
    summary = "what weighted sums of losses cannot reach on a table"
    example = "mtlsk scalarization-limits my.csv --targets price demand returns --rank 1"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("data", metavar="DATA", help="table (.csv, .csv.gz, .tsv, .parquet)")
        parser.add_argument(
            "--targets",
            nargs="+",
            metavar="T",
            required=True,
            help="column names, or how many are last",
        )
        parser.add_argument("--drop", nargs="+", metavar="C", help="columns that are no features")
        parser.add_argument(
            "--rank", type=positive, default=1, metavar="Q", help="shared features, 1 to K (1)"
        )
        parser.add_argument("--plot", metavar="FILE", help="of 2 or 3 targets: .png, .svg, .pdf")
        parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="of searches (0)")

    def run(self, arguments: argparse.Namespace) -> int:
        """Print the answer."""
        from mtlsk.limits import limits_of_table, prepared
        from mtlsk.tablefile import check_writable

        if arguments.plot:
            check_writable(arguments.plot, PICTURES)
        X, Y = prepared(arguments.data, arguments.targets, arguments.drop or [])
        found = limits_of_table(X, Y, arguments.rank, arguments.seed)
        if arguments.plot:
            _draw(X, Y, arguments.rank, arguments.plot)
        if arguments.json:
            print_json(found.as_dict())
        else:
            _print(found)
        return 0


def _print(found: Limits) -> None:
    print(found.sentence())
    shown = 5 if found.missed else 3  # a mixture that gains nothing is none
    rows: list[list[Any]] = [list(row)[:shown] for row in found.rows()]
    print(table(["mse of", "full rank", "balanced", "mixture", "gain"][:shown], rows))
    print(found.explanation())


def _draw(X: Any, Y: Any, rank: int, path: str) -> None:
    import matplotlib as mpl

    from mtlsk.displays import plot_feasible

    mpl.use("Agg")
    plot_feasible(X, Y, rank).figure_.savefig(path, dpi=120)
