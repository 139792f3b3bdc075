"""Measure mtlsk against plain torch and other packages.

    python -m tests.benchmarks [--only steps,solve,fit,memory,many] [--quick] [--share S]
                               [--out F.md] [--json F]

One thread, one process, every case in turn: the ratios mean something on any idle machine, the
times do not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from tests.benchmarks import fit, many_nets, memory, solve, steps, targets
from tests.benchmarks.measure import Results, take_share
from tests.benchmarks.report import Table, metadata, page, save_values

SECTIONS = {"steps": steps.run, "solve": solve.run, "fit": fit.run, "memory": memory.run}


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0]
    )
    names = [*SECTIONS, "many"]
    parser.add_argument("--only", default=",".join(names), help="some of " + ",".join(names))
    parser.add_argument("--quick", action="store_true", help="a minute, rougher and fewer sizes")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the full time (20 to 30 minutes): fewer rounds"
    )
    parser.add_argument("--out", metavar="FILE.md", help="write the tables in Markdown")
    parser.add_argument("--json", metavar="FILE", help="write all values for pyperf")
    found = parser.parse_args()
    found.only = [name.strip() for name in found.only.split(",")]
    unknown = sorted(set(found.only) - set(names))
    if unknown:
        parser.error(f"--only knows {', '.join(names)}; not {', '.join(unknown)}")
    return found


def main() -> None:
    """Run the sections asked for."""
    asked = options()
    torch.set_num_threads(1)
    take_share(asked.share)
    results = Results()
    tables: list[Table] = []
    more: list[targets.Target] = []
    for name, run in SECTIONS.items():
        if name in asked.only:
            tables += run(results, asked.quick)
    if "many" in asked.only:
        tables += many_nets.tables(asked.quick)
        more = many_nets.targets(asked.quick)
    tables.append(targets.table(results, more))
    told = metadata()
    text = page(tables, told)
    print(text)
    if asked.out:
        Path(asked.out).write_text(text)
    if asked.json:
        save_values(results, told, asked.json)


if __name__ == "__main__":
    main()
