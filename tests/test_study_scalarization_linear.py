"""The study of what scalarization misses: its script in a quick run, and its report."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parents[1] / "studies"


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("scalarization")
    script = STUDIES / "scalarization_linear.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", script, "--quick", "--out", out],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "worst.png").stat().st_size < 150_000
    assert (out / "front.png").stat().st_size < 150_000
    return (out / "report.md").read_text()


@pytest.fixture(params=["quick", "committed"])
def report(request):
    if request.param == "quick":
        return request.getfixturevalue("quick")
    return (STUDIES / "scalarization_linear" / "report.md").read_text()


def cells(report, titles):
    """Return the rows of all tables whose first title is ``titles``."""
    found, inside = [], False
    for line in report.splitlines():
        row = [part.strip() for part in line.strip("|").split("|")]
        if line.startswith("| ") and row[0] == titles:
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and row[0] != "---":
            found.append(row)
    return found


def test_there_is_no_hole_in_it(report):
    assert "nan" not in report.lower()
    assert " 3 random initialisations each" in report
    assert report.count("**Verdict**") == 6


def test_no_end_is_better_than_the_exact_min_max(report):
    sections = re.split(r"^### ", report, flags=re.M)[1:]
    assert sections
    for section in sections:
        exact = float(re.search(r"min-max ([\d.]+)", section)[1])
        for row in cells(section, "method"):
            assert float(row[2]) > exact - 2e-4, row


def test_weights_stay_on_the_hull_and_their_verdict_is_the_tables(report):
    failing = [s for s in re.split(r"^### ", report, flags=re.M)[1:] if ": not explorable" in s]
    assert failing
    rows = [row for section in failing for row in cells(section, "method")]
    balanced = dict.fromkeys(("equal weights", "best of the weights", "MGDA", "Tchebycheff"), 0)
    beyond = dict(balanced)
    for row in rows:
        if row[0] in balanced:
            balanced[row[0]] += int(row[5])
            beyond[row[0]] += int(row[7])
    assert beyond["equal weights"] == beyond["best of the weights"] == 0
    fixed = balanced["equal weights"] + balanced["best of the weights"]
    word = "fails" if fixed else "holds"
    assert f"(weights miss it): {word}: of the trained weights {fixed} of" in report
    runs = 3 * len(failing)
    assert f"reach in {beyond['MGDA']} of {runs} runs and at the balanced point in" in report
    assert f"balanced point in {balanced['MGDA']}. Its" in report
    assert f"Tchebycheff in {balanced['Tchebycheff']} of {runs} runs." in report


def test_the_draw_gains_what_the_gap_promises(report):
    found = cells(report[report.index("## 4.") :], "table")
    rows = [row for row in found if len(row) == 5]
    assert rows
    for _, models, balanced, gain, promised in rows:
        assert 2 <= int(models) <= 3
        got, wanted = (np.array(cell.split(), dtype=float) for cell in (gain, promised))
        assert (got > 0).all()
        assert (got > wanted - 2e-4).all()
        assert np.ptp(np.array(balanced.split(), dtype=float)) < 1e-3


def test_the_committed_counts_are_those_of_the_triples():
    text = (STUDIES / "scalarization_linear" / "report.md").read_text()
    assert "20 are explorable at q = 1, 30 at q = 2" in text
    exact = {row[0]: row[2] for row in cells(text[: text.index("## 2")], "table")}
    assert exact["SARCOS 1, 4, 5"] == "0.6442"
    assert exact["SARCOS 1, 5, 7"] == "0.6447"
