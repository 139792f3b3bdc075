"""What commands print: results on stdout, errors and progress on stderr, colour on terminals."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

CODES = {"red": "31", "yellow": "33", "bold": "1"}


def is_terminal(stream: TextIO) -> bool:
    """Say whether somebody looks at a stream."""
    return hasattr(stream, "isatty") and stream.isatty()


def coloured(text: str, colour: str, stream: TextIO) -> str:
    """Return a text in a colour on a terminal, unless NO_COLOR is set or TERM is dumb."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if plain or not is_terminal(stream):
        return text
    return f"\033[{CODES[colour]}m{text}\033[0m"


def complain(kind: str, message: str) -> None:
    """Print "mtlsk: error: ..." or "mtlsk: warning: ..." in one line on stderr."""
    colour = "red" if kind == "error" else "yellow"
    text = " ".join(message.split())
    print(f"mtlsk: {coloured(f'{kind}:', colour, sys.stderr)} {text}", file=sys.stderr)


def number(value: Any) -> str:
    """Return a cell of a table: four digits of a number, "-" for none."""
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return "-" if value is None else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, indent: str = "") -> str:
    """Return rows of cells as text in columns, the first to the left, the others to the right."""
    cells = [list(header), *([number(v) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    lines[0] = coloured(lines[0], "bold", sys.stdout)
    return "\n".join(indent + line for line in lines)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object in one line; numbers that JSON has not become null."""
    print(json.dumps(finite(content), ensure_ascii=False, default=str, allow_nan=False))


def finite(value: Any) -> Any:
    """Return plain data with None for NaN and infinities, and numpy's numbers as Python's."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def relative(path: Path) -> str:
    """Return a path as seen from here, where it lies below; as it is otherwise."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
