"""Markdown tables of the results, what they were measured on, and the raw values as a file."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from mtlsk.machine import machine, versions
from tests.benchmarks.measure import Result, Results

PACKAGES = ("torch", "torchjd", "skorch", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Table:
    """A table of text with a title and a line about what it shows."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [f"## {self.title}", "", self.note, ""] if self.note else [f"## {self.title}", ""]
        for row in (self.header, ["---"] * len(self.header), *self.rows):
            lines.append("| " + " | ".join(row) + " |")
        return "\n".join(lines)


def shown_ratio(result: Result | None) -> str:
    """Return "1.82 (1.75 to 1.90)": the ratio and the quartiles of the rounds' ratios."""
    if result is None or result.ratio is None:
        return "-"
    low, high = result.quartiles
    return f"{short(result.ratio)} ({short(low)} to {short(high)})"


def short(value: float) -> str:
    """Return three digits or so."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def ratios(results: Results, section: str, title: str, note: str, settings: Sequence[str]) -> Table:
    """Return the table of ratios with a row a case and a column a setting."""
    cases = dict.fromkeys(
        r.case for r in results.every if r.section == section and r.setting in settings
    )
    rows = []
    for case in cases:
        found = [results.of(section, s, case) for s in settings]
        rows.append([case, *map(shown_ratio, found)])
    counts = [
        max(len(r.values) for r in results.every if (r.section, r.setting) == (section, s))
        for s in settings
    ]
    rows.append(["rounds", *map(str, counts)])
    return Table(title, note, ["", *settings], rows)


def metadata() -> dict[str, str]:
    """Return the machine, the versions, the date and the commit: no names of hosts or paths."""
    found = machine()
    found["cores_used"] = str(torch.get_num_threads())
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["mtlsk"] = f"{versions()['mtlsk']}, commit {commit()}"
    found["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    return found


def commit() -> str:
    """Return the short commit of the working tree, marked where it has changes."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", *words], cwd=folder, capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    head = git("rev-parse", "--short", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return (head or "unknown") + (" with changes" if changed else "")


def page(tables: Sequence[Table], told: dict[str, str]) -> str:
    """Return the whole report."""
    lines = ["# Benchmarks", "", *(f"- {name}: {value}" for name, value in told.items()), ""]
    lines += [
        "Ratios are medians over the median of the base in the same rounds, every case taking one "
        "timed call in turn in one process; in brackets the quartiles of the ratios round by "
        "round. The row of rounds says how many.",
        "",
        "",
    ]
    return "\n".join(lines) + "\n\n".join(t.markdown() for t in tables) + "\n"


def save_values(results: Results, told: dict[str, str], file: str) -> None:
    """Write all values as a pyperf suite: a benchmark a case and setting, in order of the rounds.

    Metadata is ours alone: pyperf would collect the name of the host.
    """
    import pyperf  # type: ignore[import-untyped]

    benchmarks = []
    for r in results.every:
        values = [v for v in r.values if v > 0]
        if not values:
            continue
        about = {**told, "name": f"{r.section}: {r.setting}: {r.case}", "unit": r.unit}
        run = pyperf.Run(values, metadata=about, collect_metadata=False)
        benchmarks.append(pyperf.Benchmark([run]))
    pyperf.BenchmarkSuite(benchmarks).dump(file, replace=True)
