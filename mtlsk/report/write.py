"""Writing a report: everything is made before anything is written."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from mtlsk.comparison import Fronts, compare, verdict
from mtlsk.importance import importance
from mtlsk.outcome import Results
from mtlsk.report.clean import cleaned
from mtlsk.report.figure import picture
from mtlsk.report.html import html_page
from mtlsk.report.markdown import about, page


def write_report(results: Results, out: Path) -> Fronts:
    """Write report.html, report.md, pareto.png, trials.csv and front.csv into the folder `out`.

    Everything is made before anything is written, and each file replaces its predecessor in one
    step. Absolute paths and the name of this host are taken out of all free text. Where one front
    is empty, every point of the other is `undominated` in front.csv.

    Returns
    -------
    The fronts and what was measured on them.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    results = cleaned(results)
    fronts = compare(results)
    front = fronts.table().drop(columns=["state", "reason"])
    shares = importance(results)
    said = verdict(results, fronts)
    _write(
        out,
        {
            "trials.csv": _csv(results, results.trials),
            "front.csv": _csv(results, front),
            "pareto.png": picture(results, fronts, "\n".join(about(results))),
            "report.md": page(results, fronts, said, shares).encode(),
            "report.html": html_page(results, fronts, said, shares).encode(),
        },
    )
    return fronts


def _csv(results: Results, rows: pd.DataFrame) -> bytes:
    constant = {
        "data": results.data_name,
        "sha256": results.data_sha256,
        "cpu": results.machine.get("cpu", "unknown"),
        "versions": " ".join(f"{name}={v}" for name, v in results.versions.items()),
    }
    return rows.assign(**constant).to_csv(index=False, lineterminator="\n").encode()


def _write(out: Path, contents: dict[str, bytes]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is one step only within a file system.
    temporary = {name: out / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        for name, content in contents.items():
            temporary[name].write_bytes(content)
        for name in contents:
            os.replace(temporary[name], out / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
