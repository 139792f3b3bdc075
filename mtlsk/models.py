"""Kept models: what trials on the front came to, in files beside the study.

``OUT/models/search-12.pkl`` is a :class:`mtlsk.tablemodel.TableModel`, ``search-12.json`` the trace
of its training. They lie on the machine where the trial ran.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib

FOLDER = "models"

TRACED = {"train_losses": "train_losses", "task_weights": "task_weights", "cosines": "cosines"}
"""What a trace holds -> its column of the history."""


def path(out: str | Path, which: str, number: int) -> Path:
    """Return where the model of a trial is kept."""
    return Path(out) / FOLDER / f"{which}-{number}.pkl"


def trace_path(out: str | Path, which: str, number: int) -> Path:
    """Return where the trace of a trial is kept."""
    return path(out, which, number).with_suffix(".json")


def trace(net: Any) -> dict[str, list[Any]]:
    """Return what a fitted net's history says of its epochs, as plain lists."""
    rows = list(net.history_)
    found = {}
    for name, column in TRACED.items():
        if rows and all(column in row for row in rows):
            found[name] = [row[column] for row in rows]
    return found


def keep(out: str | Path, which: str, number: int, model: Any) -> None:
    """Write the model of a trial and its trace, each whole or not at all.

    Raises
    ------
    OSError
        Where they cannot be written.
    """
    target = path(out, which, number)
    target.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    _write(target, buffer.getvalue())
    text = json.dumps(trace(model.net))  # NaN (no gradient) goes through Python's own reader
    _write(trace_path(out, which, number), text.encode())


def load_trace(out: str | Path, which: str, number: int) -> dict[str, list[Any]]:
    """Return the trace of a trial, empty where there is none or it cannot be read."""
    try:
        found = json.loads(trace_path(out, which, number).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def drop(out: str | Path, which: str, numbers: Iterable[int]) -> None:
    """Remove the models and traces of some trials of a study, where there are any."""
    gone = {f"{which}-{number}" for number in numbers}
    for found in (Path(out) / FOLDER).glob(f"{which}-*.*"):
        if found.stem in gone:
            found.unlink(missing_ok=True)


def _write(target: Path, content: bytes) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
