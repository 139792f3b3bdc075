"""What linear scalarization misses in linear multi-task models of rank q, and who reaches it.

python studies/scalarization_linear.py --data FOLDER     the report, in studies/scalarization_linear
python studies/scalarization_linear.py --quick           a made table only, fewer steps

Claims of arXiv 2308.13985. The exact test, balanced points and gaps are closed forms; then linear
nets X w a_i are trained on the same rows by several aggregators. Errors are of the training rows.
"""

from __future__ import annotations

import numpy as np
from common import parser, with_spread, write
from scalarization_linear_drawing import bars, front
from scalarization_linear_nets import Exact, folded, runs, tables, trained
from scalarization_linear_text import page

from mtlsk.aggregators import AGGREGATORS


def wide(X, Y, exact, arguments, steps):
    """Return a row of the table of wider nets: the worst error of equal weights at q = 1, 2, 3."""
    X, Y = folded(X, Y)
    seeds = range(arguments.seeds)
    ends = {q: [trained(X, Y, "LinearScalarization", s, steps, q) for s in seeds] for q in (2, 3)}
    return ends, [
        *(with_spread([mse.max() for mse in ends[q]]) for q in (2, 3)),
        f"{exact.least_squares.max():.4f}",
    ]


def longer(data, exact, found, steps):
    """Return a sentence: how far MGDA's ends move on a table that fails with 4 times the steps."""
    name = next(name for name, e in exact.items() if not e.test.explorable)
    X, Y = folded(*data[name])
    moved = [
        np.abs(trained(X, Y, AGGREGATORS.build("MGDA"), seed, 4 * steps) - mse).max()
        for seed, (mse, *_) in enumerate(found[name]["MGDA"])
    ]
    far = f"at most about {max(moved):.3f}"
    return f"With {4 * steps} steps the errors of MGDA's ends on {name} move by {far}."


def main():
    arguments = parser(__doc__, "scalarization_linear").parse_args()
    if arguments.quick:
        arguments.seeds = min(arguments.seeds, 3)
    steps, arguments.parts = (300, 6) if arguments.quick else (600, 10)
    data = tables(arguments)
    exact = {name: Exact(*table) for name, table in data.items()}
    found = {name: runs(exact[name], *data[name], arguments, steps) for name in data}
    ends = {name: wide(*data[name], exact[name], arguments, steps) for name in data}
    arguments.out.mkdir(parents=True, exist_ok=True)
    bars(arguments.out, exact, found)
    shown = "SARCOS 1, 4, 5" if arguments.data else "made"
    front(arguments.out, shown, exact[shown], found[shown])
    checked = longer(data, exact, found, steps)
    write(*page(arguments, steps, exact, found, ends, checked))


if __name__ == "__main__":
    main()
