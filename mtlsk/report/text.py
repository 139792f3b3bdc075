"""Numbers, parameters and tables as a report writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd


def number(value: Any) -> str:
    """Return a value in few digits."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value)
    if isinstance(value, int | float | np.number):
        number = float(value)
        return str(int(number)) if number.is_integer() and abs(number) < 1e6 else f"{number:.3g}"
    return str(value)


def parameters(row: dict[str, Any]) -> str:
    """Write `aggregator[ConicGrad]__c` = 0.61 as `c=0.61`; an indexed family becomes a tuple."""
    stems: dict[str, list[str]] = {}
    indexed = set()
    for column, value in row.items():
        if not column.startswith("param: ") or value is None or value is pd.NA or value != value:
            continue
        name = column.removeprefix("param: ")
        stem = re.sub(r"\[\d+\]$", "", name)
        stems.setdefault(stem, []).append(number(value))
        if stem != name:
            indexed.add(stem)
    groups = [re.split(r"\[|__", stem)[0] for stem in stems]
    shorts = [stem.rpartition("__")[2] for stem in stems]
    parts = []
    # What belongs to one component follows it: aggregator=ConicGrad c=0.61, then the rest.
    for stem in sorted(stems, key=lambda s: groups.index(re.split(r"\[|__", s)[0])):
        owner, _, short = stem.rpartition("__")
        if shorts.count(short) > 1 and owner:
            short = f"{(re.findall(r'[^][]+', owner) or [owner])[-1]}.{short}"
        values = stems[stem]
        parts.append(
            f"{short}=({', '.join(values)})" if stem in indexed else f"{short}={values[0]}"
        )
    return " ".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table of Markdown."""
    lines = [list(head), ["---"] * len(head), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return [*(f"| {' | '.join(line)} |" for line in cells), ""]


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as tables of column -> value."""
    return [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
